// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "model/checkpoints/http.h"

namespace neoloom::model {

/// What the hub says about a file.
struct HubFile {
  std::string url;          // of its content
  std::string etag;         // SHA-256 of a large file, SHA-1 of a git blob
  int64_t size_bytes = -1;  // -1: not said
};

/// Requests to the hub of HF_ENDPOINT for one model. The token (HF_TOKEN, else Hugging Face's token file) goes to that
/// host over TLS and to no other. Repeats requests after connection errors and answers 408, 429, 5xx, waiting as
/// Retry-After says, else 0.5, 1, 2, 4 s.
/// Throws: Error(kWeights): a refusal with what to do about it (gated, not found, wrong token), or a failed connection.
class HubRequests {
 public:
  HubRequests(std::string name, std::string revision, std::function<void(const std::string&)> say);
  /// Returns the JSON text of the revision's commit and files.
  std::string revision_info() const;
  HubFile file(const std::string& commit, const std::string& file_name) const;
  /// Requests the content from a byte on, once, and returns the answer with its problem, if any.
  HttpAnswer content(const HubFile& file, int64_t begin_byte,
                     const std::function<void(int64_t status, std::string_view piece)>& sink) const;
  /// Sleeps before try number `tries`, counted from 1. Returns false after the fifth.
  bool wait_before(int tries, const HttpAnswer& answer) const;
  /// Whether to repeat the request of this answer.
  static bool worth_repeating(const HttpAnswer& answer);
  [[noreturn]] void refuse(const HttpAnswer& answer, const std::string& url) const;
  const std::string& endpoint() const { return endpoint_; }

 private:
  HttpAnswer send_to(HttpRequest request) const;
  HttpAnswer repeat(const HttpRequest& request) const;
  HttpAnswer follow(HttpRequest request, bool leave_host, HubFile* seen) const;

  std::string name_, revision_;
  std::function<void(const std::string&)> say_;
  std::string endpoint_;  // without a slash at its end
  std::string token_;     // empty: none, or not to be sent
};

}  // namespace neoloom::model
