// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/download.h"

#include "model/checkpoints/hub_download.h"
#include "runtime/core/output.h"

namespace neoloom::launch {

int run_download(comm::MpiSession& session, const DownloadArguments& arguments) {
  const auto phase = session.phase("downloading", comm::MpiSession::kBuilding);
  session.run_on_root([&]() -> std::string {
    const model::HubModel model{arguments.name, arguments.revision, model::HubFiles::kModel};
    core::print_output(model::download(model, [&](const std::string& line) { session.log().info(line); }) + "\n");
    return "";
  });
  return 0;
}

}  // namespace neoloom::launch
