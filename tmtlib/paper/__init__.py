"""The paper as data, what arithmetic says of it, and the rules that turn numbers into verdicts."""
