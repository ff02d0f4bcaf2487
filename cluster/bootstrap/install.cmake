# SPDX-License-Identifier: Apache-2.0
# cmake --install build --prefix P: the program with its plug-ins beside it, where it looks for them, its manual page and
# completion, which it prints itself, configurations and pages. The libraries of the Python prefix stay where they are.
include(GNUInstallDirs)
install(TARGETS neoloom RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
foreach(plugin neoloom_cuda_plugin neoloom_parquet_plugin)
  if(TARGET ${plugin})
    install(TARGETS ${plugin} LIBRARY DESTINATION ${CMAKE_INSTALL_BINDIR})
  endif()
endforeach()

set(NL_HELP ${CMAKE_BINARY_DIR}/help)
install(CODE "
  file(MAKE_DIRECTORY \"${NL_HELP}\")
  execute_process(COMMAND \"$<TARGET_FILE:neoloom>\" help --man
    OUTPUT_FILE \"${NL_HELP}/neoloom.1\" COMMAND_ERROR_IS_FATAL ANY)
  execute_process(COMMAND \"$<TARGET_FILE:neoloom>\" help --completion bash
    OUTPUT_FILE \"${NL_HELP}/neoloom\" COMMAND_ERROR_IS_FATAL ANY)")
install(FILES ${NL_HELP}/neoloom.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES ${NL_HELP}/neoloom DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)

install(DIRECTORY configs/ DESTINATION ${CMAKE_INSTALL_DATADIR}/neoloom/configs FILES_MATCHING PATTERN "*.yaml")
install(PROGRAMS cluster/local/mpirun.sh cluster/slurm/train.sbatch DESTINATION ${CMAKE_INSTALL_DATADIR}/neoloom)
# Pages keep their folders, so that links between them hold.
install(FILES README.md CHANGELOG.md CONTRIBUTING.md LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
foreach(folder cluster configs data launch model runtime runtime/checkpoint runtime/metrics tests tests/bench tests/bench/reports)
  file(GLOB pages CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${folder}/*.md)
  install(FILES ${pages} DESTINATION ${CMAKE_INSTALL_DOCDIR}/${folder})
endforeach()
install(DIRECTORY launch/pictures/ DESTINATION ${CMAKE_INSTALL_DOCDIR}/launch/pictures)
