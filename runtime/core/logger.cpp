// SPDX-License-Identifier: Apache-2.0
#include "runtime/core/logger.h"

#include <spdlog/logger.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <array>
#include <string_view>
#include <utility>

#include "runtime/core/error.h"
#include "runtime/core/terminal.h"

namespace neoloom::core {
namespace {

constexpr std::array kNames = {"debug", "info", "warning", "error"};

spdlog::level::level_enum theirs(LogLevel level) {
  constexpr std::array kLevels = {spdlog::level::debug, spdlog::level::info, spdlog::level::warn, spdlog::level::err};
  return kLevels.at(static_cast<size_t>(level));
}

}  // namespace

LogLevel log_level_from_name(const std::string& name) {
  for (size_t level = 0; level < kNames.size(); ++level) {
    if (name == kNames[level]) return static_cast<LogLevel>(level);
  }
  fail(ErrorKind::kUsage, "logging.level: expected debug, info, warning or error, found \"{}\"", name);
}

struct Logger::State {
  std::string prefix;
  LogLevel level = LogLevel::kInfo;
  const bool colours = stderr_has_colours();
  // Not in spdlog's registry: a process may have several logs, and each ends with its owner.
  spdlog::logger log{"neoloom", std::make_shared<spdlog::sinks::stderr_sink_mt>()};

  /// `name` precedes the text, in the colour, if there is one.
  void write(LogLevel at, const char* name, const std::string& text, const char* colour = "") {
    const size_t length = text.size() - (text.ends_with('\n') ? 1 : 0);
    const bool coloured = colours && *colour != '\0';
    log.log(theirs(at), "{}{}{}{}{}", prefix, coloured ? colour : "", name, coloured ? "\x1b[0m" : "",
            std::string_view(text).substr(0, length));
  }
};

Logger::Logger(std::string prefix) : state_(std::make_unique<State>()) {
  state_->prefix = std::move(prefix);
  state_->log.set_pattern("%v");
}
Logger::~Logger() = default;

void Logger::set_level(LogLevel level) {
  state_->level = level;
  state_->log.set_level(theirs(level));
}
LogLevel Logger::level() const { return state_->level; }

void Logger::debug(const std::string& text) { state_->write(LogLevel::kDebug, "debug: ", text); }
void Logger::detail(const std::string& text) { state_->write(LogLevel::kDebug, "", text); }
void Logger::info(const std::string& text) { state_->write(LogLevel::kInfo, "", text); }
void Logger::warning(const std::string& text) { state_->write(LogLevel::kWarning, "warning: ", text, "\x1b[33m"); }
void Logger::error(const std::string& text) { state_->write(LogLevel::kError, "neoloom: error: ", text, "\x1b[31m"); }

}  // namespace neoloom::core
