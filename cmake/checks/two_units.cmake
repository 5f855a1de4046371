# SPDX-License-Identifier: MIT
# Two units that include every header must link into one program, and run: a function or variable
# that should have been inline is defined twice otherwise.
include(${CMAKE_CURRENT_LIST_DIR}/common.cmake)

set(dir ${hygiene_dir}/two_units)
check_headers(headers)
check_flags(options ${headers})
list(TRANSFORM headers REPLACE "(.+)" "#include <\\1>" OUTPUT_VARIABLE lines)
list(JOIN lines "\n" everything)
file(WRITE ${dir}/everything.hpp "${everything}\n")

set(units ${source_dir}/tests/packaging/two_units)
foreach(unit IN ITEMS main other)
  check_run("compiling ${unit}.cpp" ${compiler} ${options} ${strict_warnings} -I${dir} -c
            ${units}/${unit}.cpp -o ${dir}/${unit}.o)
endforeach()
check_run("linking two units" ${compiler} ${flags} ${dir}/main.o ${dir}/other.o -o
          ${dir}/two_units)
check_run("running the linked program" ${dir}/two_units)
