// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoints/http.h"

#include <curl/curl.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <exception>

#include "runtime/core/environment.h"
#include "runtime/core/error.h"
#include "runtime/core/unique_handle.h"

namespace neoloom::model {
namespace {

constexpr long kConnectSeconds = 20;
constexpr long kSilenceSeconds = 60;
constexpr size_t kMaxBodyBytes = size_t{16} << 20;
constexpr size_t kMaxHeaders = 1000;

using Curl = core::UniqueHandle<core::PointerTraits<CURL*, curl_easy_cleanup>>;
using HeaderList = core::UniqueHandle<core::PointerTraits<curl_slist*, curl_slist_free_all>>;

/// What the callbacks of one transfer share.
struct Transfer {
  CURL* curl;
  const HttpRequest& request;
  HttpAnswer answer;
  std::exception_ptr thrown;
};

int64_t status_of(CURL* curl) {
  long status = 0;
  curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
  return status;
}

size_t take_header(const char* data, size_t, size_t count, void* user) {
  auto& answer = static_cast<Transfer*>(user)->answer;
  const std::string_view line(data, count);
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos || answer.headers.size() >= kMaxHeaders) return count;
  std::string name(line.substr(0, colon));
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
  std::string_view value = line.substr(colon + 1);
  while (!value.empty() && std::isspace(static_cast<unsigned char>(value.front()))) value.remove_prefix(1);
  while (!value.empty() && std::isspace(static_cast<unsigned char>(value.back()))) value.remove_suffix(1);
  answer.headers[name] = value;
  return count;
}

size_t take_body(const char* data, size_t, size_t count, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  const int64_t status = status_of(transfer.curl);
  try {
    if (transfer.request.sink && (status == 200 || status == 206)) {
      transfer.request.sink(status, {data, count});
    } else if (transfer.answer.body.size() + count <= kMaxBodyBytes) {
      transfer.answer.body.append(data, count);
    } else {
      return 0;
    }
  } catch (...) {  // it may not pass through C
    transfer.thrown = std::current_exception();
    return 0;
  }
  return count;
}

template <typename Value>
void set(CURL* curl, CURLoption option, Value value) {
  const CURLcode code = curl_easy_setopt(curl, option, value);
  core::require(code == CURLE_OK, core::ErrorKind::kInternal, "curl_easy_setopt({}): {}", static_cast<int>(option),
                curl_easy_strerror(code));
}

void set_limits(CURL* curl) {
  set(curl, CURLOPT_NOSIGNAL, 1L);
  set(curl, CURLOPT_FOLLOWLOCATION, 0L);
  set(curl, CURLOPT_PROTOCOLS_STR, "https,http");
  set(curl, CURLOPT_CONNECTTIMEOUT, kConnectSeconds);
  set(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
  set(curl, CURLOPT_LOW_SPEED_TIME, kSilenceSeconds);
  set(curl, CURLOPT_USERAGENT, "neoloom");
  const std::string authorities = core::environment({"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"});
  if (!authorities.empty()) set(curl, CURLOPT_CAINFO, authorities.c_str());
}

/// Whether an error of the transfer may be gone at a second try. Wrong names and bad certificates stay.
bool may_pass_by(CURLcode code) {
  constexpr std::array kLasting = {CURLE_PEER_FAILED_VERIFICATION, CURLE_SSL_CACERT_BADFILE, CURLE_URL_MALFORMAT,
                                   CURLE_UNSUPPORTED_PROTOCOL, CURLE_WRITE_ERROR};
  return std::find(kLasting.begin(), kLasting.end(), code) == kLasting.end();
}

HeaderList token_header(const std::string& token) {
  if (token.empty()) return HeaderList();
  HeaderList list(curl_slist_append(nullptr, ("Authorization: Bearer " + token).c_str()));
  core::require(list.valid(), core::ErrorKind::kInternal, "curl_slist_append failed");
  return list;
}

}  // namespace

std::string HttpAnswer::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? "" : found->second;
}

HttpAnswer send(const HttpRequest& request) {
  const Curl curl(curl_easy_init());
  core::require(curl.valid(), core::ErrorKind::kInternal, "curl_easy_init failed");
  Transfer transfer{curl.get(), request, {}, {}};
  std::array<char, CURL_ERROR_SIZE> words{};
  const HeaderList headers = token_header(request.token);
  set_limits(curl.get());
  set(curl.get(), CURLOPT_URL, request.url.c_str());
  set(curl.get(), CURLOPT_NOBODY, request.head_only ? 1L : 0L);
  set(curl.get(), CURLOPT_HTTPHEADER, headers.get());
  const std::string range = fmt::format("{}-", request.begin_byte);
  if (request.begin_byte > 0) set(curl.get(), CURLOPT_RANGE, range.c_str());
  set(curl.get(), CURLOPT_ERRORBUFFER, words.data());
  set(curl.get(), CURLOPT_HEADERFUNCTION, &take_header);
  set(curl.get(), CURLOPT_HEADERDATA, &transfer);
  set(curl.get(), CURLOPT_WRITEFUNCTION, &take_body);
  set(curl.get(), CURLOPT_WRITEDATA, &transfer);
  const CURLcode code = curl_easy_perform(curl.get());
  if (transfer.thrown) std::rethrow_exception(transfer.thrown);
  transfer.answer.status = status_of(curl.get());
  if (code != CURLE_OK) {
    transfer.answer.problem = words[0] != '\0' ? words.data() : curl_easy_strerror(code);
    transfer.answer.may_pass_by = may_pass_by(code);
  }
  return transfer.answer;
}

}  // namespace neoloom::model
