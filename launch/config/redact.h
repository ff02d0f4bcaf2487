// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace neoloom::launch {

/// Replaces a secret in output.
inline constexpr std::string_view kHidden = "***";

/// True for keys whose value is a secret: they end in token, password, passwd, secret or api_key. Names of special
/// tokens such as eos_token and pad_token are no secrets.
bool names_secret(std::string_view key);

/// Hides Hugging Face tokens (hf_...) and the user and password of a URL (scheme://user:password@host) in `text`.
/// Applies to everything that is printed.
std::string redacted(std::string_view text);

/// Hides the value of "name=value" or "--name=value" if names_secret(name).
std::string redacted_assignment(std::string_view text);

/// True for a text that certainly contains a secret. The reader rejects such a value, since a configuration is stored
/// with the run.
bool holds_secret(std::string_view text);

}  // namespace neoloom::launch
