// SPDX-License-Identifier: Apache-2.0
#include "launch/report/html.h"

#include <fmt/format.h>

#include <cmath>

#include "runtime/core/utf8.h"

namespace neoloom::launch {

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : core::utf8_lossy(text)) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default: {
        const auto byte = static_cast<unsigned char>(c);
        const bool control = (byte < 0x20 && c != '\n' && c != '\t') || byte == 0x7F;
        if (control) {
          out += "\uFFFD";
        } else {
          out += c;
        }
      }
    }
  }
  return out;
}

std::string exact(double value) { return std::isnan(value) ? "–" : fmt::format("{}", value); }

std::string six_digits(double value) {
  if (std::isnan(value)) return "–";
  return std::abs(value) >= 1e6 && std::isfinite(value) ? fmt::format("{:.0f}", value) : fmt::format("{:.6g}", value);
}

std::string rounded(double value) { return std::isnan(value) ? "–" : fmt::format("{:.4g}", value); }

Table::Table(std::string_view caption, const std::vector<std::string>& columns, bool text) {
  html_ = fmt::format("<div class=\"scroll\"><table{}>", text ? " class=\"text\"" : "");
  if (!caption.empty()) html_ += fmt::format("<caption>{}</caption>", escaped(caption));
  html_ += "<thead><tr>";
  for (const std::string& column : columns) html_ += fmt::format("<th scope=\"col\">{}</th>", escaped(column));
  html_ += "</tr></thead><tbody>\n";
}

void Table::row(const std::vector<std::string>& cells) { row(cells, {}); }

void Table::row(const std::vector<std::string>& cells, const std::vector<double>& shades) {
  html_ += "<tr>";
  for (size_t i = 0; i < cells.size(); ++i) {
    if (i == 0) {
      html_ += fmt::format("<th scope=\"row\">{}</th>", escaped(cells[i]));
    } else if (i <= shades.size()) {
      html_ += fmt::format("<td class=\"h{}\">{}</td>", std::lround(10 * shades[i - 1]), escaped(cells[i]));
    } else {
      html_ += fmt::format("<td>{}</td>", escaped(cells[i]));
    }
  }
  html_ += "</tr>\n";
  ++rows_;
}

std::string Table::html() const { return html_ + "</tbody></table></div>\n"; }

std::string missing(std::string_view sentence) {
  return fmt::format("<p class=\"missing\">{}</p>\n", escaped(sentence));
}

std::string section(std::string_view id, std::string_view heading, std::string_view content) {
  return fmt::format("<section id=\"{}\"><h2>{}</h2>\n{}</section>\n", escaped(id), escaped(heading), content);
}

std::string details(std::string_view summary, std::string_view content, bool open) {
  return fmt::format("<details{}><summary>{}</summary>\n{}</details>\n", open ? " open=\"open\"" : "", escaped(summary),
                     content);
}

}  // namespace neoloom::launch
