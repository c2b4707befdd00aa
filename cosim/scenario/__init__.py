"""The scenario: its typed schema (`schema`) and the only reader of YAML files (`load`)."""
