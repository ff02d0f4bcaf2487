// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace neoloom::core {

/// What a model is trained for, and with it its head: next tokens, one class a sample, or any number of classes.
enum class Task { kCausalLm, kSingleLabel, kMultiLabel };

}  // namespace neoloom::core
