// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "launch/job/model_card.h"

namespace neoloom::launch {

/// Returns the part of a model card that says what the texts of training were, and how transformers and neoloom use the
/// model so that both see new texts as training saw its own.
std::string model_use(const CardFacts& facts);

/// A string literal of YAML and Python. Its escapes are those of core::quoted.
std::string card_literal(const std::string& text);

/// Text of a card, without Markdown in it.
std::string card_text(const std::string& text);

}  // namespace neoloom::launch
