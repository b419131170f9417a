"""Programs that the tests run against: real servers, started and ended by the tests."""
