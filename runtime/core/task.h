// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace neoloom::core {

/// What a model is trained for, and with it its head: next tokens, one class a sample, any number of classes, or
/// numbers.
enum class Task { kCausalLm, kSingleLabel, kMultiLabel, kRegression };

}  // namespace neoloom::core
