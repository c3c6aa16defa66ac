"""The paper as data, arithmetic checks of it, and the rules that turn numbers into verdicts."""
