// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

namespace neoloom::model {

struct HttpRequest {
  std::string url = {};    // http:// or https://
  std::string token = {};  // sent as a bearer token; empty: none
  bool head_only = false;  // HEAD instead of GET
  int64_t begin_byte = 0;  // asks for the bytes from here on (Range)
  /// Gets the body of an answer 200 or 206 piece by piece, with the status; without it the body is kept in the answer,
  /// up to 16 MiB.
  std::function<void(int64_t status, std::string_view piece)> sink = {};
};

struct HttpAnswer {
  int64_t status = 0;                          // 0: no answer came
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
  std::string problem;       // empty: the answer arrived whole
  bool may_pass_by = false;  // the problem: worth a second try
  std::string header(const std::string& name) const;
};

/// Sends one request over libcurl and waits for its answer; follows no redirect. TLS certificates are always checked,
/// against the system's authorities or the file of SSL_CERT_FILE. Gives up after 60 s without a byte. Throws what
/// `sink` throws.
HttpAnswer send(const HttpRequest& request);

}  // namespace neoloom::model
