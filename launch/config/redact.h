// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace neoloom::launch {

/// What is shown in a secret's place.
inline constexpr std::string_view kHidden = "***";

/// True for keys whose value is a secret: they end in token, password, passwd, secret or api_key. Names of special
/// tokens such as eos_token and pad_token are none.
bool names_secret(std::string_view key);

/// `text` with tokens of Hugging Face (hf_...) and the user and password of an address (scheme://user:password@host)
/// hidden: for everything that is printed.
std::string redacted(std::string_view text);

/// "name=value" or "--name=value" as it may be shown: the value of a name that holds a secret is hidden.
std::string redacted_assignment(std::string_view text);

/// True for a text that holds a secret beyond doubt. Such a text is no value of a configuration, which is stored with
/// the run.
bool holds_secret(std::string_view text);

}  // namespace neoloom::launch
