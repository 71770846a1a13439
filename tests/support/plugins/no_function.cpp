// A shared library that is none of strategies.
extern "C" __attribute__((visibility("default"))) int answer() { return 42; }
