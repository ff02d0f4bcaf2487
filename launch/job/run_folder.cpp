// SPDX-License-Identifier: Apache-2.0
#include "launch/job/run_folder.h"

#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "model/checkpoints/hub.h"
#include "runtime/core/environment.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/json.h"

namespace neoloom::launch {
namespace {

namespace fs = std::filesystem;
using core::ErrorKind;

constexpr std::string_view kOriginComment = "# relative paths start from: ";

/// Returns the folder that run_config_text wrote down; "" when the file does not say.
std::string origin_of(const std::string& text) {
  if (!text.starts_with(kOriginComment)) return "";
  const std::string line = text.substr(kOriginComment.size(), text.find('\n') - kOriginComment.size());
  const auto value = core::parse_json(line, std::string(kOriginComment), ErrorKind::kUsage);
  return value.is_string() ? value.get<std::string>() : "";
}

/// Makes a relative path start from where the run was trained, if it leads nowhere from here.
void resolve(const std::string& origin, std::string& path, std::vector<std::string>& warnings) {
  std::error_code ignored;
  if (origin.empty() || path.empty() || fs::path(path).is_absolute()) return;
  const fs::path there = (fs::path(origin) / path).lexically_normal();
  const auto exists = [](const std::string& name) { return data::Files(name).exist(); };  // or matches as a pattern
  if (!exists(there)) return;
  if (!exists(path)) {
    path = there.string();
  } else if (fs::absolute(path).lexically_normal() != there && !fs::equivalent(path, there, ignored)) {
    warnings.push_back(
        fmt::format("{} of the current folder is used; the run was trained with {}", path, there.string()));
  }
}

/// Whether the run in output_dir joins prompts and responses directly, though the configuration does so by no key.
bool joins_unasked(const RunConfig& config) {
  const std::string stored = config.trainer_config.output_dir + "/config.yaml";
  std::error_code ignored;
  if (!config.data.template_is_default || !fs::exists(stored, ignored)) return false;
  const data::Options before = read_config(stored, {}).data;
  return !before.prompt_column.empty() && before.prompt_template.empty();
}

void join(RunConfig& config) {
  config.data.prompt_template.clear();
  config.data.template_is_default = false;
  config.warnings.push_back(fmt::format(
      "data.template: nothing stands between prompt and response, as {} was started before a line break was "
      "the default; data.template: joined says the same",
      config.trainer_config.output_dir));
}

}  // namespace

std::string result_folder(const RunConfig& config) { return config.peft_config ? "adapter" : "model"; }

std::string result_of(const std::string& run) {
  std::error_code ignored;
  for (const char* name : {"/model", "/adapter"}) {
    if (fs::exists(run + name, ignored)) return run + name;
  }
  return "";
}

std::string run_config_text(const RunConfig& config) {
  const std::string here =
      nlohmann::json(fs::current_path().string()).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return fmt::format("{}{}\n{}", kOriginComment, here, to_yaml(config));
}

RunConfig read_run_config(const std::string& run, const std::vector<std::string>& overrides) {
  const std::string path = run + "/config.yaml";
  const std::string text = core::read_file(path, ErrorKind::kUsage);
  const std::string origin = origin_of(text);
  RunConfig config = parse_config(text, path, overrides);
  for (std::string* each :
       {&config.model_config.pretrained_model_name, &config.tokenizer_config.pretrained_tokenizer_name}) {
    resolve(origin, *each, config.warnings);
  }
  data::Options& data = config.data;
  std::vector<data::Files*> evaluated;
  if (data.validation_split > 0) evaluated.push_back(&data.train);
  for (auto& [set, files] : data.validation) evaluated.push_back(&files);
  for (data::Files* files : evaluated) {
    for (std::string& name : files->names) resolve(origin, name, config.warnings);
  }
  if (config.peft_config) resolve(origin, config.peft_config->init_from, config.warnings);
  return config;
}

void keep_joined(comm::MpiSession& session, RunConfig& config) {
  const std::string joins = session.run_on_root([&] { return std::string(joins_unasked(config) ? "yes" : ""); });
  if (!joins.empty()) join(config);
}

void keep_joined(RunConfig& config) {
  if (joins_unasked(config)) join(config);
}

void require_base_there(const std::string& run, const RunConfig& config) {
  const std::string& base = config.model_config.pretrained_model_name;
  std::error_code ignored;
  if (!model::is_local_path(base) || fs::exists(base, ignored)) return;
  const std::string path = run + "/config.yaml";
  const std::string origin = origin_of(core::read_file(path, ErrorKind::kUsage));
  std::string places = fs::absolute(base, ignored).lexically_normal().string();
  if (fs::path(base).is_relative() && !origin.empty()) {
    places += fmt::format(" (from the current folder) or {} (from where the run was trained)",
                          (fs::path(origin) / base).lexically_normal().string());
  }
  core::fail(ErrorKind::kWeights,
             "{}: the base model '{}' was not found: looked for {}. "
             "Say where it is now: --set model_config.pretrained_model_name=FOLDER",
             path, base, places);
}

std::unique_ptr<checkpoint::RunLock> lock_run_folder(comm::MpiSession& session, const std::string& folder) {
  std::unique_ptr<checkpoint::RunLock> lock;
  session.run_on_root([&]() -> std::string {
    checkpoint::RunLock::Options options;
    options.slurm_job = core::environment("SLURM_JOB_ID");
    options.slurm_restarts = std::atoi(core::environment("SLURM_RESTART_COUNT").c_str());
    options.say = [&session](const std::string& text) { session.log().info(text); };
    lock = std::make_unique<checkpoint::RunLock>(folder, std::move(options));
    return "";
  });
  return lock;
}

}  // namespace neoloom::launch
