// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/export.h"

#include "launch/job/inference.h"
#include "model/checkpoints/adapter_files.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"

namespace neoloom::launch {

int run_export(comm::MpiSession& session, const ExportArguments& arguments) {
  session.run_on_root([&]() -> std::string {
    core::make_directories(core::parent_directory(arguments.output), core::ErrorKind::kOutput);  // before the work
    return "";
  });
  Inference inference = load_inference(session, arguments.model);
  const auto phase = session.phase("writing the model", comm::MpiSession::kBuilding);
  session.run_on_root([&]() -> std::string {
    const model::HeadDescription head{inference.labels, inference.task.problem_type_name(), inference.pad_id,
                                      inference.reference.revision};
    if (arguments.format == "merged") {
      model::export_merged(arguments.output, *inference.model, inference.params, inference.base.folder,
                           model::dtype_from_name(arguments.dtype), head, inference.tokenizer->files());
    } else {
      core::require(!inference.config.peft_config->target_modules.empty(), core::ErrorKind::kUsage,
                    "there is no adapter to export: this model was trained in full; use --format merged");
      model::write_adapter_folder(arguments.output, *inference.model, inference.params, inference.reference.name, head,
                                  inference.tokenizer->files());
    }
    session.log().info(arguments.output);
    return "";
  });
  return 0;
}

}  // namespace neoloom::launch
