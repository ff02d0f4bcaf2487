// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "launch/job/device.h"
#include "launch/job/training_job.h"
#include "model/model.h"
#include "runtime/core/logger.h"
#include "runtime/train/trainer_setup.h"

namespace neoloom::launch {

/// What the first lines of a run tell of.
struct TrainStart {
  const TrainingJob& job;
  const Device& device;
  const model::Model& model;
  const train::StepLimit& limit;
  int64_t ranks = 1;
  int64_t first_step = 0;  // steps that a resume has behind it
};

/// Prints four lines, of task, model, data and steps. Then come warnings and remarks, and, at logging.level debug, the
/// details. Call it on rank 0.
void print_start(const TrainStart& start, core::Logger& log);

}  // namespace neoloom::launch
