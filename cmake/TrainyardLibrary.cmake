# trainyard_library(<folder> [FOR_PLUGINS] HEADERS <public headers> SOURCES <sources and internal headers>
#                   [USES <targets public headers need>] [PRIVATE_USES <targets only sources need>])
#
# The static library trainyard_<folder>, alias trainyard::<folder>. Headers are included from the root of the
# repository, "<folder>/<header>", and each must compile on its own (CMAKE_VERIFY_INTERFACE_HEADER_SETS).
#
# FOR_PLUGINS: strategies outside the tree may use the folder. They get trainyard_<folder>_headers, which is
# trainyard::<folder> of the installed package, and call the functions of the program, which holds the library.
function(trainyard_library folder)
  cmake_parse_arguments(PARSE_ARGV 1 arg "FOR_PLUGINS" "" "HEADERS;SOURCES;USES;PRIVATE_USES")
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "trainyard_library(${folder}): unknown arguments ${arg_UNPARSED_ARGUMENTS}")
  endif()
  set(target trainyard_${folder})
  add_library(${target} STATIC)
  add_library(trainyard::${folder} ALIAS ${target})
  target_sources(${target}
    PRIVATE ${arg_SOURCES}
    PUBLIC FILE_SET HEADERS BASE_DIRS ${PROJECT_SOURCE_DIR} FILES ${arg_HEADERS})
  target_include_directories(${target} PUBLIC ${PROJECT_SOURCE_DIR})
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_link_libraries(${target} PUBLIC ${arg_USES} PRIVATE ${arg_PRIVATE_USES} trainyard_warnings)
  if(arg_FOR_PLUGINS)
    trainyard_headers_for_plugins(${folder} HEADERS ${arg_HEADERS} USES ${arg_USES})
  endif()
endfunction()

function(trainyard_headers_for_plugins folder)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "HEADERS;USES")
  set(target trainyard_${folder}_headers)
  add_library(${target} INTERFACE)
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${folder} VERIFY_INTERFACE_HEADER_SETS OFF)
  target_sources(${target} INTERFACE FILE_SET HEADERS BASE_DIRS ${PROJECT_SOURCE_DIR} FILES ${arg_HEADERS})
  target_compile_features(${target} INTERFACE cxx_std_20)
  # The same arithmetic as in the program. Hidden: a class of the plug-in stays its own, even where the program has one
  # of the same name.
  target_compile_options(${target} INTERFACE -ffp-contract=off -fvisibility=hidden -fvisibility-inlines-hidden)
  list(TRANSFORM arg_USES REPLACE "^trainyard::(.*)$" "trainyard_\\1_headers")
  target_link_libraries(${target} INTERFACE ${arg_USES} trainyard)
  install(TARGETS ${target} EXPORT trainyard FILE_SET HEADERS DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/trainyard)
endfunction()

# trainyard_test(<name> LABEL <label> SOURCES <sources> USES <targets> [AFTER <fixture>])
#
# One GoogleTest program; CTest lists each of its tests under the label. TRAINYARD_SOURCE_DIR is the root of the
# repository, for tests that read scenarios and goldens. AFTER: the fixture that they need.
function(trainyard_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "LABEL;AFTER" "SOURCES;USES")
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "trainyard_test(${name}): unknown arguments ${arg_UNPARSED_ARGUMENTS}")
  endif()
  add_executable(${name} ${arg_SOURCES})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_definitions(${name} PRIVATE TRAINYARD_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  target_link_libraries(${name} PRIVATE ${arg_USES} GTest::gtest_main trainyard_warnings)
  # What takes a quarter of the time to compile a test; not under the dev preset, so that every test names what it uses.
  target_precompile_headers(${name} PRIVATE <gtest/gtest.h> <algorithm> <map> <optional> <string> <variant> <vector>)
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_INTERPROCEDURAL_OPTIMIZATION)
    set_target_properties(${name} PROPERTIES INTERPROCEDURAL_OPTIMIZATION OFF)
    target_compile_options(${name} PRIVATE -O1 -fno-lto)
    target_link_options(${name} PRIVATE -fno-lto)
  endif()
  gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60
    PROPERTIES LABELS ${arg_LABEL} FIXTURES_REQUIRED "${arg_AFTER}")
endfunction()
