# What `cmake --install` gives strategies outside the tree: the program, the public headers of the folders that say
# FOR_PLUGINS, and a package, so that find_package(trainyard) has trainyard::strategies and what it uses. There are no
# libraries: a plug-in calls the functions of the program that loads it. The package lies in the build folder too.
include(CMakePackageConfigHelpers)

set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/trainyard)
install(TARGETS trainyard EXPORT trainyard RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(EXPORT trainyard NAMESPACE trainyard:: FILE trainyard-targets.cmake DESTINATION ${package_folder})
export(EXPORT trainyard NAMESPACE trainyard:: FILE ${PROJECT_BINARY_DIR}/trainyard-targets.cmake)

file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/trainyard-config.cmake @ONLY
  CONTENT "include(\${CMAKE_CURRENT_LIST_DIR}/trainyard-targets.cmake)\n")
write_basic_package_version_file(${PROJECT_BINARY_DIR}/trainyard-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/trainyard-config.cmake ${PROJECT_BINARY_DIR}/trainyard-config-version.cmake
  DESTINATION ${package_folder})
