#include "scenarios/internal/expression.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
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
  divided,
  minimum,
  maximum,
  known,
  // Of a list, which is the node's value.
  first,
  least,
  most,
  crossing
};

struct Expression::Node {
  Operator operation = Operator::literal;
  ExpressionValue value = false;  // of a literal; the words of a path; the name of a list
  Location where;
  std::vector<std::unique_ptr<const Node>> operands = {};
};

namespace {

using Node = Expression::Node;
using NodePointer = std::unique_ptr<const Node>;
using Nodes = std::vector<NodePointer>;

struct Token {
  std::string text;  // empty at the end
  std::size_t at = 0;
  bool quoted = false;
};

struct Function {
  std::string_view name;
  Operator operation;
  bool of_list;
  std::size_t least_operands;
  std::size_t most_operands;
  std::string_view usage;
};
constexpr std::size_t any_number = 64;
constexpr std::array<Function, 7> functions{
    {{"min", Operator::minimum, false, 1, any_number, "min(a, b)"},
     {"max", Operator::maximum, false, 1, any_number, "max(a, b)"},
     {"known", Operator::known, false, 1, 1, "known(a)"},
     {"first", Operator::first, true, 2, 2, "first(list, condition, value)"},
     {"least", Operator::least, true, 1, 1, "least(list, value)"},
     {"most", Operator::most, true, 1, 1, "most(list, value)"},
     {"crossing", Operator::crossing, true, 3, 3, "crossing(list, x, y, level)"}}};

// Letters beyond ASCII, of several bytes, are letters.
bool is_word_letter(char letter) {
  const auto byte = static_cast<unsigned char>(letter);
  return byte >= 0x80 || std::isalnum(byte) != 0 || letter == '_' || letter == '.' || letter == '-' || letter == '/' ||
         letter == '@';
}

class Parser {
 public:
  Parser(std::string_view text, Location where, const Expression::Words& words)
      : text_(text), where_(std::move(where)), words_(words) {
    advance();
  }

  NodePointer whole() {
    NodePointer root = disjunction();
    if (!token_.text.empty() || token_.quoted) wrong("expected 'and', 'or' or the end, got '" + token_.text + "'");
    return root;
  }

  std::vector<Expression::Name> take_names() { return std::move(names_); }

 private:
  struct Binary {
    std::string_view sign;
    Operator operation;
  };

  [[noreturn]] void wrong(const std::string& message) const { wrong(message, token_.at); }
  [[noreturn]] void wrong(const std::string& message, std::size_t at) const {
    throw ScenarioError(place(at), words_.subject + ": " + message);
  }
  // Letters of an expression on one line are where they seem to be; of another, or on a command line, it is all one
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
  void expect_closed() {
    if (!take(")"))
      wrong(token_.text.empty() ? "a parenthesis is not closed" : "expected ')', got '" + token_.text + "'");
  }

  NodePointer node(Operator operation, ExpressionValue value, std::size_t at, Nodes operands = {}) const {
    return std::make_unique<const Node>(
        Node{.operation = operation, .value = std::move(value), .where = place(at), .operands = std::move(operands)});
  }
  NodePointer join(Operator operation, std::size_t at, NodePointer left, NodePointer right) const {
    Nodes operands;
    operands.push_back(std::move(left));
    operands.push_back(std::move(right));
    return node(operation, false, at, std::move(operands));
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
    if (!take("not") && !take("!")) return comparison();
    Nodes operands;
    operands.push_back(nested(&Parser::negation));
    return node(Operator::negation, false, at, std::move(operands));
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
      return node(Operator::literal, token.text, token.at);
    }
    if (take("(")) {
      NodePointer inside = nested(&Parser::disjunction);
      expect_closed();
      return inside;
    }
    if (token.text.empty()) wrong("expected a key, a number or a word at the end");
    if (!is_word_letter(token.text.front()) ||
        (token.text.size() == 1 && std::isalnum(static_cast<unsigned char>(token.text.front())) == 0))
      wrong("expected a key, a number or a word, got '" + token.text + "'");
    advance();
    if (take("(")) return call(token);
    return word(token);
  }
  NodePointer word(const Token& token) {
    double number = 0;
    const char* end = token.text.data() + token.text.size();
    const auto [rest, error] = std::from_chars(token.text.data(), end, number);
    if (error == std::errc{} && rest == end) return node(Operator::literal, number, token.at);
    if (token.text == "true" || token.text == "false") return node(Operator::literal, token.text == "true", token.at);
    if (!words_.is_path(token.text)) return node(Operator::literal, token.text, token.at);
    names_.push_back({.path = token.text, .where = place(token.at), .lists = lists_});
    return node(Operator::path, token.text, token.at);
  }

  NodePointer call(const Token& name) {
    const auto function = std::ranges::find(functions, name.text, &Function::name);
    if (function == functions.end()) {
      std::vector<std::string_view> names;
      for (const Function& known : functions) names.push_back(known.name);
      wrong("no function is called '" + name.text + "'" + nearest(name.text, names) + "; there are " +
                listed(names, "and"),
            name.at);
    }
    std::string list;
    if (function->of_list) {
      list = list_name(*function);
      lists_.push_back(list);
    }
    Nodes operands;
    while (true) {
      operands.push_back(nested(&Parser::disjunction));
      if (!take(",")) break;
    }
    expect_closed();
    if (function->of_list) lists_.pop_back();
    if (operands.size() < function->least_operands || operands.size() > function->most_operands)
      wrong("expected " + std::string{function->usage}, name.at);
    return node(function->operation, std::move(list), name.at, std::move(operands));
  }
  std::string list_name(const Function& function) {
    const Token token = token_;
    if (token.quoted || !words_.is_list || !words_.is_list(token.text))
      wrong("expected " + std::string{function.usage} + ", but '" + token.text + "' is no list");
    advance();
    if (!take(",")) wrong("expected " + std::string{function.usage});
    return token.text;
  }

  NodePointer nested(NodePointer (Parser::*rule)()) {
    constexpr int most = 100;
    if (++depth_ > most) wrong("the expression is nested too deeply");
    NodePointer inside = (this->*rule)();
    --depth_;
    return inside;
  }

  std::string_view text_;
  Location where_;
  const Expression::Words& words_;
  std::vector<Expression::Name> names_;
  std::vector<std::string> lists_;  // of the functions around what is read
  std::size_t next_ = 0;
  Token token_;
  int depth_ = 0;
};

using Scope = Expression::Scope;

class Evaluation {
 public:
  explicit Evaluation(const std::string& subject) : subject_(subject) {}

  std::optional<ExpressionValue> value(const Node& node, const Scope& scope) const {
    switch (node.operation) {
      case Operator::literal:
        return node.value;
      case Operator::path:
        return scope.value(std::get<std::string>(node.value));
      case Operator::either:
      case Operator::both:
        return joined(node, scope);
      case Operator::negation: {
        const std::optional<bool> inside = truth(*node.operands[0], scope);
        if (!inside) return std::nullopt;
        return !*inside;
      }
      case Operator::minimum:
      case Operator::maximum:
        return extreme(node, scope);
      case Operator::known:
        return value(*node.operands[0], scope).has_value();
      case Operator::first:
        return first(node, scope);
      case Operator::least:
      case Operator::most:
        return extreme_of_list(node, scope);
      case Operator::crossing:
        return crossing(node, scope);
      default:
        break;
    }
    const std::optional<ExpressionValue> left = value(*node.operands[0], scope);
    if (!left) return std::nullopt;  // what stands on the right may be dear: `devices` reads the whole cluster
    const std::optional<ExpressionValue> right = value(*node.operands[1], scope);
    if (!right) return std::nullopt;
    return combined(node, *left, *right);
  }

  std::optional<bool> truth(const Node& node, const Scope& scope) const {
    const std::optional<ExpressionValue> result = value(node, scope);
    if (!result) return std::nullopt;
    if (!std::holds_alternative<bool>(*result))
      throw ScenarioError(node.where, subject_ + ": expected a comparison, such as cluster.nodes >= 8");
    return std::get<bool>(*result);
  }

  std::optional<double> number(const Node& node, const Scope& scope) const {
    const std::optional<ExpressionValue> result = value(node, scope);
    if (!result) return std::nullopt;
    if (!std::holds_alternative<double>(*result)) throw ScenarioError(node.where, subject_ + ": expected a number");
    return std::get<double>(*result);
  }

 private:
  // As in SQL: what is unknown on one side may not matter.
  std::optional<ExpressionValue> joined(const Node& node, const Scope& scope) const {
    const bool decisive = node.operation == Operator::either;
    const std::optional<bool> left = truth(*node.operands[0], scope);
    if (left && *left == decisive) return decisive;
    const std::optional<bool> right = truth(*node.operands[1], scope);
    if (right && *right == decisive) return decisive;
    if (!left || !right) return std::nullopt;
    return !decisive;
  }

  std::optional<ExpressionValue> extreme(const Node& node, const Scope& scope) const {
    std::optional<double> found;
    for (const NodePointer& operand : node.operands) {
      const std::optional<double> one = number(*operand, scope);
      if (!one) return std::nullopt;
      if (!found || (node.operation == Operator::minimum ? *one < *found : *one > *found)) found = one;
    }
    return found;
  }

  // Points without a value do not count.
  std::optional<ExpressionValue> extreme_of_list(const Node& node, const Scope& scope) const {
    std::optional<double> found;
    for (const Scope& point : points(node, scope)) {
      const std::optional<double> one = number(*node.operands[0], point);
      if (one && (!found || (node.operation == Operator::least ? *one < *found : *one > *found))) found = one;
    }
    if (!found) return std::nullopt;
    return *found;
  }

  std::optional<ExpressionValue> first(const Node& node, const Scope& scope) const {
    for (const Scope& point : points(node, scope))
      if (truth(*node.operands[0], point).value_or(false)) return value(*node.operands[1], point);
    return std::nullopt;
  }

  std::optional<ExpressionValue> crossing(const Node& node, const Scope& scope) const {
    struct Point {
      double x;
      double above;  // by how much y exceeds the level
    };
    std::optional<Point> before;
    for (const Scope& point : points(node, scope)) {
      const std::optional<double> x = number(*node.operands[0], point);
      const std::optional<double> y = number(*node.operands[1], point);
      const std::optional<double> level = number(*node.operands[2], point);
      if (!x || !y || !level) continue;
      const Point here{.x = *x, .above = *y - *level};
      if (here.above == 0) return here.x;
      if (before && (before->above < 0) != (here.above < 0)) {
        const double share = before->above / (before->above - here.above);
        if (before->x <= 0 || here.x <= 0) return before->x + share * (here.x - before->x);
        return before->x * std::exp(share * std::log(here.x / before->x));
      }
      before = here;
    }
    return std::nullopt;
  }

  static std::vector<Scope> points(const Node& node, const Scope& scope) {
    return scope.points(std::get<std::string>(node.value));
  }

  ExpressionValue combined(const Node& node, const ExpressionValue& left, const ExpressionValue& right) const {
    if (node.operation == Operator::equal) return left == right;
    if (node.operation == Operator::unequal) return left != right;
    if (!std::holds_alternative<double>(left) || !std::holds_alternative<double>(right))
      throw ScenarioError(node.where,
                          subject_ + ": expected numbers on both sides; names can only be compared by == and !=");
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

  const std::string& subject_;
};

}  // namespace

Expression::Expression(std::string_view text, const Location& where, const Words& words) : subject_(words.subject) {
  Parser parser(text, where, words);
  root_ = parser.whole();
  names_ = parser.take_names();
}
Expression::~Expression() = default;
Expression::Expression(Expression&&) noexcept = default;
Expression& Expression::operator=(Expression&&) noexcept = default;

std::optional<ExpressionValue> Expression::value(const Scope& scope) const {
  return Evaluation(subject_).value(*root_, scope);
}
std::optional<double> Expression::number(const Scope& scope) const {
  return Evaluation(subject_).number(*root_, scope);
}
std::optional<bool> Expression::holds(const Scope& scope) const { return Evaluation(subject_).truth(*root_, scope); }

}  // namespace trainyard::scenarios
