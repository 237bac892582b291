"""What the tests of engines share: the markers of those that need a server of their own."""


def pytest_configure(config):
    config.addinivalue_line("markers", "vllm: runs a real vLLM server (tests/servers/install_vllm.sh)")
    config.addinivalue_line("markers", "sglang: runs a real SGLang server (tests/servers/install_sglang.sh)")
