// SPDX-License-Identifier: Apache-2.0
#include "launch/job/hub.h"

#include <vector>

#include "model/checkpoints/hub.h"
#include "model/checkpoints/hub_download.h"

namespace neoloom::launch {
namespace {

// A tokenizer of the model's own name is of the model's revision.
std::string tokenizer_revision(const RunConfig& config) {
  const bool own = config.tokenizer_config.pretrained_tokenizer_name == config.model_config.pretrained_model_name;
  return own ? config.model_config.revision : "main";
}

std::vector<model::HubModel> hub_models(const RunConfig& config) {
  std::vector<model::HubModel> models;
  const std::string& model = config.model_config.pretrained_model_name;
  const std::string& tokenizer = config.tokenizer_config.pretrained_tokenizer_name;
  if (!model.empty() && !model::is_local_path(model)) {
    models.push_back({model, config.model_config.revision, model::HubFiles::kModel});
  }
  if (!tokenizer.empty() && !model::is_local_path(tokenizer)) {
    models.push_back({tokenizer, tokenizer_revision(config), model::HubFiles::kTokenizer});
  }
  return models;
}

}  // namespace

void fetch_from_hub(comm::MpiSession& session, const RunConfig& config) {
  const auto phase = session.phase("fetching the model", comm::MpiSession::kBuilding);
  const auto fetch = [&] {
    if (model::hub_is_offline()) return;
    for (const model::HubModel& model : hub_models(config)) {
      if (model::is_on_disk(model)) continue;
      model::download(model, [&](const std::string& line) { session.log().info(line); });
    }
  };
  session.run_on_root([&]() -> std::string {
    fetch();
    return "";
  });
  session.run_on_all_or_fail([&] {
    if (session.local_rank() == 0 && !session.is_root()) fetch();
  });
  session.sleeping_barrier();
}

std::string tokenizer_folder(const RunConfig& config) {
  const std::string& name = config.tokenizer_config.pretrained_tokenizer_name;
  if (name.empty() || model::is_local_path(name)) return name;
  return model::resolve_model_folder(name, tokenizer_revision(config));
}

}  // namespace neoloom::launch
