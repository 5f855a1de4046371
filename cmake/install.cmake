# SPDX-License-Identifier: MIT
# Installs the headers and what find_package(addloss CONFIG) reads.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(package_dir ${CMAKE_INSTALL_DATADIR}/cmake/addloss)

install(
  TARGETS addloss addloss_cuda
  EXPORT addloss_targets
  FILE_SET HEADERS DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
# The target file is the whole package: addloss depends on nothing that would have to be found.
install(
  EXPORT addloss_targets
  NAMESPACE addloss::
  FILE addloss-config.cmake
  DESTINATION ${package_dir})

# While the major version is 0, a minor version may break users. The headers suit any
# architecture, so a 32-bit consumer may use a 64-bit installation.
write_basic_package_version_file(
  ${PROJECT_BINARY_DIR}/addloss-config-version.cmake
  COMPATIBILITY SameMinorVersion
  ARCH_INDEPENDENT)
install(FILES ${PROJECT_BINARY_DIR}/addloss-config-version.cmake DESTINATION ${package_dir})
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/licenses/addloss)
