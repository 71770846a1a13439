#include "scenarios/internal/expression.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <utility>

namespace trainyard::scenarios {

enum class Operator : std::uint8_t {
  literal,
  path,
  either,
  both,
  negation,
  equal,
  unequal,
  less,
  at_most,
  more,
  at_least,
  plus,
  minus,
  times,
  divided
};

struct Expression::Node {
  Operator operation = Operator::literal;
  ExpressionValue value = false;  // of a literal; the words of a path
  Location where;
  std::unique_ptr<const Node> left = nullptr;
  std::unique_ptr<const Node> right = nullptr;
};

namespace {

using Node = Expression::Node;
using NodePointer = std::unique_ptr<const Node>;

struct Token {
  std::string text;  // empty at the end
  std::size_t at = 0;
  bool quoted = false;
};

// Letters beyond ASCII, of several bytes, are letters.
bool is_word_letter(char letter) {
  const auto byte = static_cast<unsigned char>(letter);
  return byte >= 0x80 || std::isalnum(byte) != 0 || letter == '_' || letter == '.' || letter == '-' || letter == '/' ||
         letter == '@';
}

class Parser {
 public:
  Parser(std::string_view text, Location where, const Expression::IsPath& is_path)
      : text_(text), where_(std::move(where)), is_path_(is_path) {
    advance();
  }

  NodePointer whole() {
    NodePointer root = disjunction();
    if (!token_.text.empty() || token_.quoted) wrong("expected 'and', 'or' or the end, got '" + token_.text + "'");
    return root;
  }

 private:
  struct Binary {
    std::string_view sign;
    Operator operation;
  };

  [[noreturn]] void wrong(const std::string& message) const {
    throw ScenarioError(place(token_.at), "where: " + message);
  }
  // Letters of a condition on one line are where they seem to be; of another, or on a command line, it is all one
  // place.
  Location place(std::size_t at) const {
    Location where = where_;
    if (where.line > 0) where.column += static_cast<int>(at);
    return where;
  }

  void advance() {
    while (next_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[next_])) != 0) ++next_;
    token_ = {.text = {}, .at = next_, .quoted = false};
    if (next_ == text_.size()) return;
    const char letter = text_[next_];
    if (letter == '\'' || letter == '"') return quoted_text(letter);
    const bool operand_may_follow = letter != '-' && letter != '/';
    if (is_word_letter(letter) && (operand_may_follow || starts_number())) {
      const std::size_t from = next_;
      while (next_ < text_.size() && is_word_letter(text_[next_])) ++next_;
      token_.text = text_.substr(from, next_ - from);
      return;
    }
    constexpr std::array<std::string_view, 6> pairs{"==", "!=", "<=", ">=", "&&", "||"};
    const std::string_view two = text_.substr(next_, 2);
    const std::size_t length = std::ranges::find(pairs, two) != pairs.end() ? 2 : 1;
    token_.text = text_.substr(next_, length);
    next_ += length;
  }
  bool starts_number() const {
    return text_[next_] == '-' && next_ + 1 < text_.size() &&
           std::isdigit(static_cast<unsigned char>(text_[next_ + 1])) != 0;
  }
  void quoted_text(char quote) {
    const std::size_t end = text_.find(quote, next_ + 1);
    if (end == std::string_view::npos) wrong("a quote is not closed");
    token_.text = text_.substr(next_ + 1, end - next_ - 1);
    token_.quoted = true;
    next_ = end + 1;
  }
  bool take(std::string_view text) {
    if (token_.quoted || token_.text != text) return false;
    advance();
    return true;
  }

  NodePointer join(Operator operation, std::size_t at, NodePointer left, NodePointer right) const {
    return std::make_unique<const Node>(Node{.operation = operation,
                                             .value = false,
                                             .where = place(at),
                                             .left = std::move(left),
                                             .right = std::move(right)});
  }

  // Operators of equal rank, from the left.
  template <class Operand, std::size_t size>
  NodePointer chain(const std::array<Binary, size>& operators, Operand operand) {
    NodePointer left = operand();
    while (true) {
      const std::size_t at = token_.at;
      const auto found = std::ranges::find_if(operators, [&](const Binary& one) { return take(one.sign); });
      if (found == operators.end()) return left;
      left = join(found->operation, at, std::move(left), operand());
    }
  }

  NodePointer disjunction() {
    return chain(std::array<Binary, 2>{{{"or", Operator::either}, {"||", Operator::either}}},
                 [this] { return conjunction(); });
  }
  NodePointer conjunction() {
    return chain(std::array<Binary, 2>{{{"and", Operator::both}, {"&&", Operator::both}}},
                 [this] { return negation(); });
  }
  NodePointer negation() {
    const std::size_t at = token_.at;
    if (take("not") || take("!")) return join(Operator::negation, at, nested(&Parser::negation), nullptr);
    return comparison();
  }
  NodePointer comparison() {
    constexpr std::array<Binary, 7> operators{{{"==", Operator::equal},
                                               {"=", Operator::equal},
                                               {"!=", Operator::unequal},
                                               {"<=", Operator::at_most},
                                               {"<", Operator::less},
                                               {">=", Operator::at_least},
                                               {">", Operator::more}}};
    NodePointer left = sum();
    const std::size_t at = token_.at;
    const auto found = std::ranges::find_if(operators, [&](const Binary& one) { return take(one.sign); });
    if (found == operators.end()) return left;
    return join(found->operation, at, std::move(left), sum());
  }
  NodePointer sum() {
    return chain(std::array<Binary, 2>{{{"+", Operator::plus}, {"-", Operator::minus}}}, [this] { return product(); });
  }
  NodePointer product() {
    return chain(std::array<Binary, 2>{{{"*", Operator::times}, {"/", Operator::divided}}},
                 [this] { return single(); });
  }
  NodePointer single() {
    const Token token = token_;
    if (token.quoted) {
      advance();
      return literal(Operator::literal, token.text, token.at);
    }
    if (take("(")) {
      NodePointer inside = nested(&Parser::disjunction);
      if (!take(")"))
        wrong(token_.text.empty() ? "a parenthesis is not closed" : "expected ')', got '" + token_.text + "'");
      return inside;
    }
    if (token.text.empty()) wrong("expected a key, a number or a word at the end");
    if (!is_word_letter(token.text.front()) ||
        (token.text.size() == 1 && std::isalnum(static_cast<unsigned char>(token.text.front())) == 0))
      wrong("expected a key, a number or a word, got '" + token.text + "'");
    advance();
    return word(token);
  }
  NodePointer word(const Token& token) const {
    double number = 0;
    const char* end = token.text.data() + token.text.size();
    const auto [rest, error] = std::from_chars(token.text.data(), end, number);
    if (error == std::errc{} && rest == end) return literal(Operator::literal, number, token.at);
    if (token.text == "true" || token.text == "false")
      return literal(Operator::literal, token.text == "true", token.at);
    return literal(is_path_(token.text) ? Operator::path : Operator::literal, token.text, token.at);
  }
  NodePointer literal(Operator operation, ExpressionValue value, std::size_t at) const {
    return std::make_unique<const Node>(Node{.operation = operation, .value = std::move(value), .where = place(at)});
  }
  NodePointer nested(NodePointer (Parser::*rule)()) {
    constexpr int most = 100;
    if (++depth_ > most) wrong("the condition is nested too deeply");
    NodePointer node = (this->*rule)();
    --depth_;
    return node;
  }

  std::string_view text_;
  Location where_;
  const Expression::IsPath& is_path_;
  std::size_t next_ = 0;
  Token token_;
  int depth_ = 0;
};

class Evaluation {
 public:
  explicit Evaluation(const Expression::Lookup& lookup) : lookup_(lookup) {}

  std::optional<ExpressionValue> value(const Node& node) const {
    switch (node.operation) {
      case Operator::literal:
        return node.value;
      case Operator::path:
        return lookup_(std::get<std::string>(node.value));
      case Operator::either:
      case Operator::both:
        return joined(node);
      case Operator::negation: {
        const std::optional<bool> inside = truth(*node.left);
        if (!inside) return std::nullopt;
        return !*inside;
      }
      default:
        break;
    }
    const std::optional<ExpressionValue> left = value(*node.left);
    if (!left) return std::nullopt;  // what stands on the right may be dear: `devices` reads the whole cluster
    const std::optional<ExpressionValue> right = value(*node.right);
    if (!right) return std::nullopt;
    return combined(node, *left, *right);
  }

  std::optional<bool> truth(const Node& node) const {
    const std::optional<ExpressionValue> result = value(node);
    if (!result) return std::nullopt;
    if (!std::holds_alternative<bool>(*result))
      throw ScenarioError(node.where, "where: expected a comparison, such as cluster.nodes >= 8");
    return std::get<bool>(*result);
  }

 private:
  // As in SQL: what is unknown on one side may not matter.
  std::optional<ExpressionValue> joined(const Node& node) const {
    const bool decisive = node.operation == Operator::either;
    const std::optional<bool> left = truth(*node.left);
    if (left && *left == decisive) return decisive;
    const std::optional<bool> right = truth(*node.right);
    if (right && *right == decisive) return decisive;
    if (!left || !right) return std::nullopt;
    return !decisive;
  }

  static ExpressionValue combined(const Node& node, const ExpressionValue& left, const ExpressionValue& right) {
    if (node.operation == Operator::equal) return left == right;
    if (node.operation == Operator::unequal) return left != right;
    if (!std::holds_alternative<double>(left) || !std::holds_alternative<double>(right))
      throw ScenarioError(node.where, "where: expected numbers on both sides; names can only be compared by == and !=");
    const double a = std::get<double>(left);
    const double b = std::get<double>(right);
    switch (node.operation) {
      case Operator::less:
        return a < b;
      case Operator::at_most:
        return a <= b;
      case Operator::more:
        return a > b;
      case Operator::at_least:
        return a >= b;
      case Operator::plus:
        return a + b;
      case Operator::minus:
        return a - b;
      case Operator::times:
        return a * b;
      default:
        return a / b;
    }
  }

  const Expression::Lookup& lookup_;
};

}  // namespace

Expression::Expression(std::string_view text, const Location& where, const IsPath& is_path)
    : root_(Parser(text, where, is_path).whole()) {}
Expression::~Expression() = default;
Expression::Expression(Expression&&) noexcept = default;
Expression& Expression::operator=(Expression&&) noexcept = default;

std::optional<bool> Expression::holds(const Lookup& lookup) const { return Evaluation(lookup).truth(*root_); }

}  // namespace trainyard::scenarios
