# SPDX-License-Identifier: MIT
# Two steps of teacher and student, at once and with an interruption: the same picture, bit for bit.
cmake_minimum_required(VERSION 3.25)

# trainer(<folder> <argument>...)
function(trainer folder)
  execute_process(
    COMMAND ${TRAINER} --teacher-steps 2 --batch 16 --images 200 --width 8 --out ${OUT}/${folder}
            ${ARGN}
    RESULT_VARIABLE status
    OUTPUT_VARIABLE output
    ERROR_VARIABLE output)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "the trainer failed (${status}):\n${output}")
  endif()
  if(output MATCHES "nan|inf")
    message(FATAL_ERROR "a loss is not finite:\n${output}")
  endif()
endfunction()

file(REMOVE_RECURSE ${OUT})
trainer(whole --steps 2)
trainer(parts --steps 1)
file(SHA256 ${OUT}/parts/samples.png early)
trainer(parts --steps 2 --resume)
file(SHA256 ${OUT}/whole/samples.png whole)
file(SHA256 ${OUT}/parts/samples.png resumed)
if(NOT resumed STREQUAL whole)
  message(FATAL_ERROR "a resumed run draws other pictures than a whole one")
endif()
if(early STREQUAL whole)
  message(FATAL_ERROR "the last step changed nothing")
endif()
