// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/dry_run.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <numeric>
#include <vector>

#include "data/batching/step_list.h"
#include "model/adapters/count.h"
#include "model/panels.h"
#include "runtime/core/error.h"
#include "runtime/train/gradient_sum.h"
#include "runtime/train/plan.h"

namespace neoloom::launch {
namespace {

// A folder that is gone when the dry run ends.
class ScratchFolder {
 public:
  ScratchFolder() {
    std::string pattern = std::filesystem::temp_directory_path() / "neoloom-dry-run-XXXXXX";
    core::require(::mkdtemp(pattern.data()) != nullptr, core::ErrorKind::kData, "cannot make a temporary folder {}",
                  pattern);
    path_ = pattern;
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

void print(const char* name, const std::string& value) { std::cout << fmt::format("{:<24}{}\n", name, value); }

std::string megabytes(double bytes) { return fmt::format("{:.1f} MB", bytes / 1e6); }

void print_lengths(const data::TokenStore& store) {
  std::vector<int32_t> lengths(store.lengths().begin(), store.lengths().end());
  std::sort(lengths.begin(), lengths.end());
  const int64_t total = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  const auto quantile = [&](double q) {
    return lengths[static_cast<size_t>(q * static_cast<double>(lengths.size() - 1))];
  };
  print("samples", fmt::format("{} ({} rows left out, {} cut)", store.size(), store.invalid_rows().size(),
                               store.truncated_samples()));
  print("tokens", fmt::format("{} (a sample: median {}, 95 % {}, longest {})", total, quantile(0.5), quantile(0.95),
                              lengths.back()));
}

void print_labels(const data::TokenStore& store, data::ProblemType problem_type) {
  const std::vector<std::string>& names = store.label_names();
  std::vector<int64_t> counts(names.size(), 0);
  for (int64_t i = 0; i < store.size(); ++i) {
    if (problem_type == data::ProblemType::kMultiLabel) {
      const auto row = store.multi_label(i);
      for (size_t k = 0; k < row.size(); ++k) counts[k] += row[k];
    } else if (store.label(i) >= 0) {
      ++counts[static_cast<size_t>(store.label(i))];
    }
  }
  print("labels", std::to_string(names.size()));
  for (size_t k = 0; k < names.size(); ++k) {
    const auto width = static_cast<size_t>(40.0 * static_cast<double>(counts[k]) / static_cast<double>(store.size()));
    std::cout << fmt::format("  {:<20} {:>8}  {}\n", names[k], counts[k], std::string(width, '#'));
  }
}

}  // namespace

std::string dry_run(const RunConfig& config, const TaskChoice& task, const Base& base, const data::Tokenizer& tokenizer,
                    int world_size) {
  const ScratchFolder scratch;
  const data::StoreRequest request = store_request(config, task, base, config.data.train);
  data::TokenStore::build(request, tokenizer, scratch.path() + "/train.h5");
  const auto store = data::TokenStore::open(scratch.path() + "/train.h5");
  if (!config.data.validation.empty()) {
    data::StoreRequest validation = store_request(config, task, base, config.data.validation);
    if (task.classifies()) validation.label_names = store->label_names();
    data::TokenStore::build(validation, tokenizer, scratch.path() + "/validation.h5");
  }
  const int64_t labels = task.classifies() ? static_cast<int64_t>(store->label_names().size()) : 0;
  const int64_t parameters = base.config.body_parameters();
  const model::TrainableCount trainable = model::count_trainable(base.config, config.peft_config, labels);
  const train::Batching batching = train::resolve_batching(config.trainer_config, config.runtime, world_size);
  const data::StepList steps(store->lengths(), store->target_counts(),
                             {.micro_batch_size = batching.micro_batch_size,
                              .micro_batches_per_step = batching.micro_batches_per_step,
                              .sampling = train::sampling_from_name(config.trainer_config.train_sampling_strategy),
                              .drop_last = config.trainer_config.dataloader_drop_last});
  const train::Plan plan = train::resolve_plan(config.trainer_config, steps.steps_per_epoch());

  print("model", fmt::format("{} ({} parameters)", base.folder, parameters));
  print("task", task.classifies() ? task.problem_type_name() : "causal_lm");
  print_lengths(*store);
  if (task.classifies()) print_labels(*store, task.problem_type);
  print("trainable parameters",
        fmt::format("{} ({:.3f} %)", trainable.parameters,
                    100.0 * static_cast<double>(trainable.parameters) / static_cast<double>(parameters)));
  print("global batch", fmt::format("{} samples: {} micro-batches of {}, on {} rank{}", batching.global_batch_size(),
                                    batching.micro_batches_per_step, batching.micro_batch_size, world_size,
                                    world_size == 1 ? "" : "s"));
  print("steps",
        fmt::format("{} ({} an epoch, {} of warm-up)", plan.total_steps, plan.steps_per_epoch, plan.warmup_steps));
  print("bytes per all-reduce",
        std::to_string(train::gradient_sum_bytes(config.runtime.gradient_sum, trainable.flat_elements)));
  const double weight_bytes = config.model_config.frozen_dtype == model::Dtype::kFloat32 ? 4.0 : 2.0;
  const bool panels = config.runtime.device != "cuda" && config.peft_config &&
                      model::multiplies_panels(resolve_compute_dtype(config, "cpu"));
  print("frozen weights", megabytes(static_cast<double>(parameters) * weight_bytes * (panels ? 2.0 : 1.0)) +
                              " a node (shared by its ranks on CPUs" +
                              (panels ? ", in the order of products too)" : ")"));
  print("training state",
        megabytes(static_cast<double>(trainable.flat_elements) * 24.0) + " a rank (values, gradients, sums, moments)");
  const int32_t longest = *std::max_element(store->lengths().begin(), store->lengths().end());
  print("activations", megabytes(model::activation_bytes(base.config, batching.micro_batch_size, longest)) +
                           fmt::format(" a rank for {} x {} tokens", batching.micro_batch_size, longest));
  std::cout.flush();
  return "";
}

}  // namespace neoloom::launch
