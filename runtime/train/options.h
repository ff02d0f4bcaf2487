// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runtime/optim/schedule.h"

namespace neoloom::train {

enum class Interval { kNo, kSteps, kEpoch, kBest };  // kBest: save_strategy only

/// A boolean option that the run may choose itself.
enum class AutoFlag { kAuto, kTrue, kFalse };

struct MemorySize {
  int64_t bytes = 0;  // 0: auto
};

/// class_weights: how much the loss of each class counts.
struct ClassWeights {
  bool balanced = false;                                  // auto: by the classes' shares of the training file
  std::vector<std::pair<std::string, double>> of_labels;  // by name
  bool given() const { return balanced || !of_labels.empty(); }
};

/// non_finite_policy: what happens after a step whose gradients are not finite. It makes no update.
struct NonFinitePolicy {
  int64_t most_skipped = 20;  // such steps in a row, after which the run ends; 1: abort
  bool aborts() const { return most_skipped == 1; }
};

/// loss_spike_policy: a step with a loss far above the last ones makes no update.
struct LossSpikePolicy {
  double z_score = 0.0;       // standard deviations above the mean of the last losses; 0: off
  int64_t window = 100;       // losses that are compared with
  int64_t most_skipped = 10;  // spikes in a row, after which the run ends
  bool given() const { return z_score > 0.0; }
};

/// The configuration group `trainer_config`: Hugging Face TrainingArguments' names, meanings and defaults.
struct Options {
  std::string output_dir = "runs/default";
  int64_t per_device_train_batch_size = 8;
  int64_t per_device_eval_batch_size = 8;
  int64_t gradient_accumulation_steps = 1;
  int64_t max_tokens_per_micro_batch = 0;  // 0: micro-batches of per_device_train_batch_size samples
  double num_train_epochs = 3.0;
  int64_t max_steps = -1;  // > 0 overrides num_train_epochs
  bool auto_find_batch_size = false;
  std::string optim = "adamw_torch";  // optim::optimizer_names()
  std::string optim_args;             // "momentum=0.9,nesterov=true"
  double learning_rate = 5e-5;
  std::optional<double> loraplus_lr_ratio;   // LoRA+: learning rate of lora_B over that of lora_A
  std::string lr_scheduler_type = "linear";  // optim::schedule_names()
  optim::ScheduleArguments lr_scheduler_kwargs;
  double warmup_steps = 0.0;  // >= 1 a count, (0, 1) a share of all steps (alias warmup_ratio)
  double adam_beta1 = 0.9;
  double adam_beta2 = 0.999;
  double adam_epsilon = 1e-8;
  double weight_decay = 0.0;
  double max_grad_norm = 1.0;
  bool completion_only_loss = true;     // prompts and responses: false: prompts are targets, too
  ClassWeights class_weights;           // single- and multi-label classification; training only
  double label_smoothing_factor = 0.0;  // single-label classification, causal LM
  double neftune_noise_alpha = 0.0;     // noise on the token embeddings in training; 0: none
  bool bf16 = false;                    // sets runtime.compute_dtype
  bool fp16 = false;
  AutoFlag gradient_checkpointing = AutoFlag::kAuto;  // changes time and memory, not bits
  int64_t seed = 42;
  std::optional<int64_t> data_seed;
  bool dataloader_drop_last = false;
  std::string train_sampling_strategy = "random";  // random | sequential | group_by_length
  Interval logging_strategy = Interval::kSteps;
  double logging_steps = 10;  // count, or share of all steps below 1
  bool logging_first_step = false;
  Interval eval_strategy = Interval::kNo;
  double eval_steps = 0;       // 0: logging_steps
  double eval_delay = 0;       // no evaluation before; in epochs with eval_strategy epoch, else in steps
  bool eval_on_start = false;  // also before the first step of a run
  Interval save_strategy = Interval::kSteps;
  double save_steps = 500;
  int64_t save_total_limit = 3;
  bool load_best_model_at_end = false;
  std::string metric_for_best_model = "loss";
  std::optional<bool> greater_is_better;
  std::optional<int64_t> early_stopping_patience;  // evaluations in a row without an improvement; absent: off
  double early_stopping_threshold = 0.0;           // of an improvement that counts
  std::vector<std::string> report_to;              // tensorboard, csv, prometheus
  std::string logging_dir;                         // of TensorBoard's files; empty: tensorboard in output_dir
  bool calibrate = false;  // classification: fit temperature and thresholds of the result on the validation data
  NonFinitePolicy non_finite_policy;
  LossSpikePolicy loss_spike_policy;

  /// Whether evaluations are compared by metric_for_best_model.
  bool compares_evaluations() const {
    return load_best_model_at_end || save_strategy == Interval::kBest || early_stopping_patience.has_value() ||
           optim::follows_metric(lr_scheduler_type);
  }
};

/// The configuration group `runtime`.
struct RuntimeOptions {
  std::string device = "auto";             // auto | cpu | cuda
  int64_t threads_per_rank = 0;            // 0: auto
  int64_t global_batch_size = 0;           // 0: per_device x accumulation x ranks at the first start
  std::string compute_dtype = "auto";      // auto | float16 | bfloat16 | float32
  std::string cache_dir;                   // empty: ~/.cache/neoloom
  bool trust_cache = false;                // accept cache files that other users could have written
  std::string verify_weights = "changed";  // changed | always
  MemorySize memory_budget;                // of a rank; auto: its share of the free memory
  int64_t logits_chunk_rows = 0;           // causal LM: rows of logits in memory at once; 0: by device
  bool allow_mixed_devices = false;
  bool deterministic = true;           // GPUs: only kernels with the same bits in every run
  bool cuda_graphs = true;             // GPUs: micro-steps of one shape are captured once
  std::string gradient_sum = "fixed";  // fixed: exact int64 | float: fp32, bits depend on the ranks
  int64_t bucket_bytes = 0;            // least size of an all-reduce bucket; 0: auto
  int64_t state_check_steps = 50;      // steps between hash comparisons over ranks; 0: never
  int64_t peer_timeout_seconds = 300;  // silence of an awaited rank after which the job exits with 6
  int64_t prefetch_batches = 4;
  int64_t profile_from_step = 0;  // step, from 1, from which the profiler records; 0: none
  int64_t profile_steps = 3;      // steps that it records
};

/// The configuration group `checkpoint`.
struct CheckpointOptions {
  bool extend = false;  // set by --extend: a larger max_steps or num_train_epochs continues a finished run
};

/// The configuration group `logging`.
struct LoggingOptions {
  std::string level = "info";     // debug | info | warning | error
  std::string progress = "auto";  // auto | bar | plain | off
};

}  // namespace neoloom::train
