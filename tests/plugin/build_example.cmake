# Installs what was built in BUILD into a new folder below FOLDER, and builds the plug-in in EXAMPLE against it as its
# author would: with COMPILER, FLAGS and GENERATOR. That the package is found in the build folder too is only looked at.
function(run)
  execute_process(COMMAND ${ARGN} COMMAND_ERROR_IS_FATAL ANY)
endfunction()

file(REMOVE_RECURSE ${FOLDER})
set(configure ${CMAKE_COMMAND} -S ${EXAMPLE} -G ${GENERATOR} -DCMAKE_CXX_COMPILER=${COMPILER} -DCMAKE_CXX_FLAGS=${FLAGS}
  -DCMAKE_BUILD_TYPE=Release)
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${FOLDER}/prefix)
run(${configure} -B ${FOLDER}/build -DCMAKE_PREFIX_PATH=${FOLDER}/prefix)
run(${CMAKE_COMMAND} --build ${FOLDER}/build)
run(${configure} -B ${FOLDER}/build-beside-the-tree -DCMAKE_PREFIX_PATH=${BUILD})
