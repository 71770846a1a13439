// The single values of a result, by their paths: "memory.peak_bytes".
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace trainyard::scenarios {

struct ResultField {
  std::string path;
  std::string pointer;        // RFC 6901: "/memory/peak_bytes"
  std::string_view sql_type;  // INTEGER, REAL or TEXT
};

// As to_json(Result) has them, in its order; lists are left out.
const std::vector<ResultField>& result_fields();

}  // namespace trainyard::scenarios
