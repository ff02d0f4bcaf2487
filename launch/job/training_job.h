// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/hygiene.h"
#include "data/token_store.h"
#include "launch/job/inputs.h"
#include "launch/job/labels.h"
#include "launch/job/run_identity.h"
#include "runtime/comm/mpi_session.h"
#include "runtime/train/evaluator.h"

namespace neoloom::launch {

/// Holds everything between the configuration and the trainer.
struct TrainingJob : Inputs {
  HeadStart head;                                // of classification
  BaseReference reference;                       // the base, as written adapters name it
  std::vector<int64_t> label_counts;             // of the training data
  std::shared_ptr<const data::TokenStore> rows;  // of data.train, before a split
  std::shared_ptr<const data::TokenStore> train;
  std::vector<train::ValidationSet> validation;
  std::vector<std::string> labels;
  std::vector<float> class_weights;     // [C]; empty: 1
  std::vector<data::Finding> findings;  // about the data, on rank 0 of a first start
  std::vector<std::string> untrained;   // target_warnings()
  ResolvedSettings resolved;
  std::string checkpoints() const { return checkpoints_of(config); }
};

/// Fills `job` from job.config, but for weights and data: checks what can be checked without them. `name` names the
/// configuration in messages. Throws: as read_inputs, and Error(kUsage).
void read_everything_small(const std::string& name, TrainingJob& job);

/// Opens the token stores of data.train and data.validation, and writes those that no cache holds. Fills rows, train,
/// validation and what follows from the labels. Collective: every rank. Throws: Error(kData), Error(kUsage).
void open_stores(comm::MpiSession& session, TrainingJob& job);

}  // namespace neoloom::launch
