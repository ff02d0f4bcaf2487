// SPDX-License-Identifier: Apache-2.0
#include "launch/job/training_job.h"

#include "launch/job/class_weights.h"
#include "launch/job/test_hooks.h"
#include "runtime/train/best_model.h"

namespace neoloom::launch {

void read_everything_small(const std::string& name, TrainingJob& s) {
  Mistakes found(s.config.places);
  if (settle_inputs(name, s, found)) {
    found.attempt([&] { require_loss_options_fit(s.config.trainer_config, s.task.value); });
    found.attempt([&] {
      const std::string warning =
          train::check_metric(s.config.trainer_config, s.task.value, /*num_labels=*/0, s.config.data.validation);
      if (!warning.empty()) s.config.warnings.push_back(warning);
    });
  }
  found.refuse_any(name);
  read_files_of_inputs(s);
  s.resolved.base_config = base_config_values(s.base.config);
  s.resolved.tokenizer_hash = s.tokenizer->content_hash();
  s.resolved.pad_token_id = s.pad_id;
  s.resolved.start_hash = start_hash(s.config);
  s.resolved.kernel_environment = kernel_environment();
  s.reference = base_reference(s.config, s.start_adapter.value_or(model::AdapterFolder{}));
}

void open_stores(comm::MpiSession& session, TrainingJob& s) {
  const core::Cache cache = cache_directory(session, s.config);
  const data::StoreRequest training = store_request(s.config, s.task, s.base, s.config.data.train);
  s.rows = open_store(session, training, *s.tokenizer, cache);
  s.labels = s.rows->label_names();
  session.run_on_all_or_fail([&] {
    const data::Split parts = split_in_packs(s.config, s.rows, training);
    s.train = parts.train;
    if (parts.validation) s.validation = {{"", parts.validation}};
    const std::optional<int64_t>& expected = s.config.model_config.num_labels;
    Mistakes found(s.config.places);
    found.require(!s.task.classifies() || !expected || *expected == static_cast<int64_t>(s.labels.size()),
                  "model_config.num_labels is {}, but {} has {} labels", expected.value_or(0),
                  s.config.data.train.text(), s.labels.size());
    if (s.task.classifies()) {
      found.attempt([&] {
        train::check_metric(s.config.trainer_config, s.task.value, static_cast<int64_t>(s.labels.size()),
                            s.config.data.validation);
      });
      s.label_counts = data::label_counts(*s.train, s.task.value);
      found.attempt([&] {
        s.class_weights = class_weights(s.config.trainer_config.class_weights,
                                        {s.task.value, s.labels, s.label_counts, s.train->size()});
      });
      found.attempt([&] { s.head = head_to_start_from(s, s.labels); });
    }
    found.refuse_any(s.config.data.train.text());
  });
  for (const auto& [name, files] : s.config.data.validation) {
    data::StoreRequest request = store_request(s.config, s.task, s.base, files);
    if (s.task.classifies()) request.label_names = s.labels;
    s.validation.push_back({name, open_store(session, request, *s.tokenizer, cache)});
    session.run_on_all_or_fail([&] { s.validation.back().store = in_packs(s.validation.back().store, request); });
  }
}

}  // namespace neoloom::launch
