# Writes OUT, a header with what git calls the tree SOURCE; only if that has changed, so that nothing is compiled again for nothing.
execute_process(COMMAND git describe --always --dirty WORKING_DIRECTORY ${SOURCE}
  OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
if(failed)
  set(commit "")
endif()
file(CONFIGURE OUTPUT ${OUT} CONTENT "#define DMC_COMMIT \"${commit}\"\n")
