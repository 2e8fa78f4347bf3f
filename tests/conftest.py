pytest_plugins = ["tests.support.emulator", "tests.support.parakeet", "tests.support.pubsub"]
