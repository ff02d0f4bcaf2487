// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoints/hub_requests.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <thread>

#include "model/checkpoints/hub.h"
#include "runtime/core/environment.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/text.h"

namespace neoloom::model {
namespace {

using core::ErrorKind;

constexpr int kMaxTries = 5;
constexpr int kMaxRedirects = 5;
constexpr double kFirstWaitSeconds = 0.5;
constexpr int64_t kLongestWaitSeconds = 300;

/// Returns scheme, host and port of a URL: "https://host:port".
std::string origin(const std::string& url) {
  const size_t host = url.find("://");
  return host == std::string::npos ? "" : url.substr(0, url.find_first_of("/?#", host + 3));
}

std::string chosen_endpoint() {
  std::string endpoint = core::environment("HF_ENDPOINT");
  if (endpoint.empty()) endpoint = "https://huggingface.co";
  while (endpoint.ends_with('/')) endpoint.pop_back();
  core::require(endpoint.starts_with("https://") || endpoint.starts_with("http://"), ErrorKind::kUsage,
                "HF_ENDPOINT {}: expected a URL that begins with https://", core::quoted(endpoint));
  return endpoint;
}

std::string chosen_token() {
  std::string token = core::environment({"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"});
  const std::string path = hub_token_path();
  if (token.empty() && std::filesystem::is_regular_file(path)) token = core::read_file(path, ErrorKind::kUsage, 4096);
  std::erase_if(token, [](char c) { return c == '\n' || c == '\r' || c == ' '; });
  const bool printable = std::all_of(token.begin(), token.end(), [](char c) { return c > ' ' && c < '\x7f'; });
  core::require(printable, ErrorKind::kUsage, "HF_TOKEN, or the token in {}, holds characters that no token has", path);
  return token;
}

/// Returns the number of seconds in a Retry-After header, or -1.
int64_t retry_after_seconds(const HttpAnswer& answer) {
  const std::string text = answer.header("retry-after");
  int64_t seconds = -1;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  return code == std::errc() && end == text.data() + text.size() ? seconds : -1;
}

bool is_redirect(const HttpAnswer& answer) {
  return answer.status >= 301 && answer.status <= 308 && !answer.header("location").empty();
}

std::string plain_etag(std::string etag) {
  if (etag.starts_with("W/")) etag.erase(0, 2);
  std::erase(etag, '"');
  return etag;
}

/// Takes what an answer says about the file. A header of a linked (large) file goes before the answer's own.
void note(const HttpAnswer& answer, HubFile& file) {
  const std::string linked = answer.header("x-linked-etag");
  if (!linked.empty() || file.etag.empty()) file.etag = plain_etag(linked.empty() ? answer.header("etag") : linked);
  std::string size = answer.header("x-linked-size");
  if (size.empty() && !is_redirect(answer)) size = answer.header("content-length");
  int64_t bytes = -1;
  std::from_chars(size.data(), size.data() + size.size(), bytes);
  if (file.size_bytes < 0) file.size_bytes = bytes;
}

}  // namespace

HubRequests::HubRequests(std::string name, std::string revision, std::function<void(const std::string&)> say)
    : name_(std::move(name)), revision_(std::move(revision)), say_(std::move(say)), endpoint_(chosen_endpoint()) {
  token_ = chosen_token();
  if (!token_.empty() && !endpoint_.starts_with("https://")) {
    token_.clear();
    say_(fmt::format("{} has no TLS: HF_TOKEN is not sent to it", endpoint_));
  }
}

HttpAnswer HubRequests::send_to(HttpRequest request) const {
  if (origin(request.url) == origin(endpoint_)) request.token = token_;
  return send(request);
}

bool HubRequests::worth_repeating(const HttpAnswer& answer) {
  if (!answer.problem.empty()) return answer.may_pass_by;
  return answer.status == 408 || answer.status == 429 || answer.status >= 500;
}

bool HubRequests::wait_before(int tries, const HttpAnswer& answer) const {
  if (tries > kMaxTries) return false;
  const int64_t asked = std::min(retry_after_seconds(answer), kLongestWaitSeconds);
  const double seconds = asked >= 0 ? static_cast<double>(asked) : kFirstWaitSeconds * (1 << (tries - 1));
  say_(fmt::format("{}: {}; trying again in {} s", endpoint_,
                   answer.problem.empty() ? fmt::format("answer {}", answer.status) : answer.problem, seconds));
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  return true;
}

HttpAnswer HubRequests::repeat(const HttpRequest& request) const {
  HttpAnswer answer = send_to(request);
  for (int tries = 1; worth_repeating(answer) && wait_before(tries, answer); ++tries) answer = send_to(request);
  return answer;
}

/// Follows redirects, of the content also to another host, never from TLS to none.
HttpAnswer HubRequests::follow(HttpRequest request, bool leave_host, HubFile* seen) const {
  for (int hops = 0; hops <= kMaxRedirects; ++hops) {
    HttpAnswer answer = request.sink ? send_to(request) : repeat(request);
    if (seen != nullptr && answer.status < 400) note(answer, *seen);
    if (!is_redirect(answer)) return answer;
    const std::string target = answer.header("location");
    const std::string next = target.starts_with('/') ? origin(request.url) + target : target;
    if (!leave_host && origin(next) != origin(endpoint_)) return answer;
    core::require(next.starts_with("https://") || (next.starts_with("http://") && request.url.starts_with("http://")),
                  ErrorKind::kWeights, "{} redirects to {}, which has no TLS", request.url, core::quoted(next));
    request.url = next;
  }
  core::fail(ErrorKind::kWeights, "{}: more than {} redirects", request.url, kMaxRedirects);
}

std::string HubRequests::revision_info() const {
  std::string revision = revision_;  // a slash belongs to the name here
  for (size_t at = revision.find('/'); at != std::string::npos; at = revision.find('/', at))
    revision.replace(at, 1, "%2F");
  const std::string url = fmt::format("{}/api/models/{}/revision/{}", endpoint_, name_, revision);
  HttpAnswer answer = follow({.url = url}, /*leave_host=*/false, nullptr);
  if (answer.status != 200 || !answer.problem.empty()) refuse(answer, url);
  return answer.body;
}

HubFile HubRequests::file(const std::string& commit, const std::string& file_name) const {
  HubFile file;
  file.url = fmt::format("{}/{}/resolve/{}/{}", endpoint_, name_, commit, file_name);
  const HttpAnswer answer = follow({.url = file.url, .head_only = true}, /*leave_host=*/false, &file);
  const bool found = answer.problem.empty() && (answer.status == 200 || is_redirect(answer));
  if (!found) refuse(answer, file.url);
  const std::string told = answer.header("x-repo-commit");
  core::require(told.empty() || told == commit, ErrorKind::kWeights, "{}: the hub answers for commit {}", file.url,
                core::quoted(told));
  const bool hex = file.etag.find_first_not_of("0123456789abcdef") == std::string::npos;
  core::require(hex && (file.etag.size() == 40 || file.etag.size() == 64), ErrorKind::kWeights,
                "{}: the hub gives no hash to check it by (ETag {})", file.url, core::quoted(file.etag));
  return file;
}

HttpAnswer HubRequests::content(const HubFile& file, int64_t begin_byte,
                                const std::function<void(int64_t, std::string_view)>& sink) const {
  return follow({.url = file.url, .begin_byte = begin_byte, .sink = sink}, /*leave_host=*/true, nullptr);
}

void HubRequests::refuse(const HttpAnswer& answer, const std::string& url) const {
  const std::string code = answer.header("x-error-code");
  const std::string model = fmt::format("model '{}' (revision {})", name_, revision_);
  const char* other_ways = "Or fetch it on another machine with `neoloom download` and set HF_HUB_CACHE or HF_HOME";
  if (!answer.problem.empty()) {
    core::fail(ErrorKind::kWeights,
               "{}: {}: {}. Without a network, run `neoloom download {}` where there is one (a login node) and start "
               "the job with HF_HUB_OFFLINE=1",
               model, url, answer.problem, name_);
  }
  if (code == "GatedRepo") {
    core::fail(ErrorKind::kWeights,
               "{} is gated ({}): accept its conditions at {}/{}, then set HF_TOKEN to a token of that account. {}",
               model, answer.status, endpoint_, name_, other_ways);
  }
  if (answer.status == 401 || answer.status == 403) {
    core::fail(ErrorKind::kWeights,
               "{}: the hub refuses it ({}): it does not exist, or it is private or gated and {}. Check the name at "
               "{}/{}, and set HF_TOKEN to a token that may read it",
               model, answer.status, token_.empty() ? "no HF_TOKEN is set" : "HF_TOKEN does not open it", endpoint_,
               name_);
  }
  if (answer.status == 404) {
    const bool revision = code == "RevisionNotFound";
    core::fail(ErrorKind::kWeights,
               "{}: {} has no such {} (404, {}). Check {} at {}/{}; a private model needs HF_TOKEN", model, endpoint_,
               revision ? "revision" : "model or file", url,
               revision ? "model_config.revision, or --revision," : "the name", endpoint_, name_);
  }
  core::fail(ErrorKind::kWeights, "{}: {} answers {}. Try again later. {}", model, url, answer.status, other_ways);
}

}  // namespace neoloom::model
