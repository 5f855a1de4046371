# SPDX-License-Identifier: MIT
# Which directory of include/addloss may include which: data flows one way, and so do includes.
# "top" stands for the files directly in include/addloss; version.hpp is open to all.

set(rooms_of_the_pipeline core schedule sampler weighting noising reduce losses heads)

set(core_may_include core)
set(schedule_may_include core schedule)
set(sampler_may_include core sampler)
set(weighting_may_include core schedule weighting)
set(reduce_may_include core reduce)
set(noising_may_include core schedule reduce noising)
set(losses_may_include core schedule weighting reduce noising losses)
set(heads_may_include core reduce losses heads)
set(cpu_may_include core reduce cpu)
set(cuda_may_include ${rooms_of_the_pipeline} cuda)
set(torch_may_include ${rooms_of_the_pipeline} cpu cuda adapters torch)
set(adapters_may_include core adapters)
set(testing_may_include ${rooms_of_the_pipeline} cpu cuda adapters testing top)
set(top_may_include ${rooms_of_the_pipeline} cpu cuda top)

# These may include the standard library, what comes with every compiler, and nothing else.
set(standard_library_only core schedule sampler weighting noising reduce losses top)

set(standard_headers
    algorithm any array atomic barrier bit bitset cassert cctype cerrno cfenv cfloat charconv
    chrono cinttypes climits clocale cmath codecvt compare complex concepts condition_variable
    coroutine csetjmp csignal cstdarg cstddef cstdint cstdio cstdlib cstring ctime cuchar cwchar
    cwctype deque exception execution filesystem format forward_list fstream functional future
    initializer_list iomanip ios iosfwd iostream istream iterator latch limits list locale map
    memory memory_resource mutex new numbers numeric optional ostream queue random ranges ratio
    regex scoped_allocator semaphore set shared_mutex source_location span sstream stack stdexcept
    stop_token streambuf string string_view strstream syncstream system_error thread tuple
    type_traits typeindex typeinfo unordered_map unordered_set utility valarray variant vector
    version)

set(compiler_headers arm_neon.h emmintrin.h immintrin.h omp.h)

include(${CMAKE_CURRENT_LIST_DIR}/common.cmake)

set(failures "")
set(edges 0)
file(GLOB_RECURSE files RELATIVE ${include_dir} ${include_dir}/addloss/*.hpp
     ${include_dir}/addloss/*.cuh)
if(NOT files)
  check_fail("no header found in ${include_dir}/addloss")
endif()
foreach(file IN LISTS files)
  if(file MATCHES "^addloss/([^/]+)/")
    set(room ${CMAKE_MATCH_1})
  else()
    set(room top)
  endif()
  if(NOT DEFINED ${room}_may_include)
    string(APPEND failures "${file}: the directory ${room} is not in the table of this check\n")
    continue()
  endif()
  file(STRINGS ${include_dir}/${file} lines REGEX "^[ \t]*#[ \t]*include")
  foreach(line IN LISTS lines)
    math(EXPR edges "${edges} + 1")
    if(NOT line MATCHES "^[ \t]*#[ \t]*include[ \t]*([<\"])([^>\"]+)[>\"]")
      string(APPEND failures "${file}: cannot read '${line}'\n")
      continue()
    endif()
    set(quote "${CMAKE_MATCH_1}")
    set(name "${CMAKE_MATCH_2}")
    # A quoted name may be relative to the including file.
    if(quote STREQUAL "\"" AND NOT name MATCHES "^addloss/")
      cmake_path(GET file PARENT_PATH name_dir)
      cmake_path(APPEND name_dir ${name} OUTPUT_VARIABLE name)
      cmake_path(NORMAL_PATH name)
    endif()
    if(NOT name MATCHES "^addloss/")
      if(room IN_LIST standard_library_only AND NOT name IN_LIST standard_headers
         AND NOT name IN_LIST compiler_headers)
        string(APPEND failures "${file}: <${name}> is not of the standard library\n")
      endif()
      continue()
    endif()
    if(file MATCHES "\\.hpp$" AND name MATCHES "\\.cuh$")
      string(APPEND failures "${file}: a .hpp includes the .cuh ${name}\n")
    endif()
    if(name STREQUAL "addloss/version.hpp")
      continue()
    endif()
    if(name MATCHES "^addloss/([^/]+)/")
      set(to ${CMAKE_MATCH_1})
    else()
      set(to top)
    endif()
    if(NOT to IN_LIST ${room}_may_include)
      string(APPEND failures "${file}: ${room} may not include ${to} (${name})\n")
    endif()
  endforeach()
endforeach()

if(failures)
  check_fail("${failures}")
endif()
message("${edges} includes point the right way")
