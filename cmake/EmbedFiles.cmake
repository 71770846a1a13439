# trainyard_embed(<target> BASE <folder> PATTERNS <patterns> RECURSIVE_PATTERNS <patterns> [FOREIGN <name>=<path> ...])
#
# A static library that holds the files matched below BASE, so that the program needs no data folder. It defines
# trainyard::scenarios::embedded_files(), declared in scenarios/internal/embedded.hpp. A file added, changed or
# removed is noticed by the next build. FOREIGN: files from elsewhere, under names as if they lay below BASE.
function(trainyard_embed target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "BASE" "PATTERNS;RECURSIVE_PATTERNS;FOREIGN")
  string(REPLACE "[" "[[]" base_pattern "${arg_BASE}")  # a bracket in a path is no pattern
  list(TRANSFORM arg_PATTERNS PREPEND "${base_pattern}/")
  list(TRANSFORM arg_RECURSIVE_PATTERNS PREPEND "${base_pattern}/")
  set(files "")
  if(arg_PATTERNS)
    file(GLOB files RELATIVE ${arg_BASE} CONFIGURE_DEPENDS ${arg_PATTERNS})
  endif()
  if(arg_RECURSIVE_PATTERNS)
    file(GLOB_RECURSE deep RELATIVE ${arg_BASE} CONFIGURE_DEPENDS ${arg_RECURSIVE_PATTERNS})
    list(APPEND files ${deep})
  endif()
  list(REMOVE_DUPLICATES files)
  list(SORT files)
  if(NOT files)
    message(WARNING "No file to embed below ${arg_BASE}: the catalogue is empty")
  endif()

  # The list is a dependency of its own: it changes when a file goes away, which no other dependency shows.
  set(list_file ${CMAKE_CURRENT_BINARY_DIR}/${target}.txt)
  list(JOIN files "\n" lines)
  list(JOIN arg_FOREIGN "\n" foreign_lines)
  file(CONFIGURE OUTPUT ${list_file} CONTENT "${lines}\n${foreign_lines}\n" @ONLY)

  if(NOT TARGET trainyard_embed_files)
    add_executable(trainyard_embed_files ${PROJECT_SOURCE_DIR}/cmake/embed_files.cpp)
    target_link_libraries(trainyard_embed_files PRIVATE trainyard_warnings)
    set_target_properties(trainyard_embed_files PROPERTIES INTERPROCEDURAL_OPTIMIZATION OFF)
  endif()
  set(source ${CMAKE_CURRENT_BINARY_DIR}/${target}.cpp)
  list(TRANSFORM files PREPEND "${arg_BASE}/")
  list(TRANSFORM arg_FOREIGN REPLACE "^[^=]*=" "")
  add_custom_command(
    OUTPUT ${source}
    COMMAND trainyard_embed_files ${arg_BASE} ${list_file} ${source}
    DEPENDS trainyard_embed_files ${list_file} ${files} ${arg_FOREIGN}
    COMMENT "Embedding catalogue, measurements and pages"
    VERBATIM)
  # A target of its own, without warnings and tidy: clang warns of long literals, which are the point here.
  add_library(${target} STATIC ${source})
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR})
  set_target_properties(${target} PROPERTIES CXX_CLANG_TIDY "" INTERPROCEDURAL_OPTIMIZATION OFF)
endfunction()
