"""An experiment's configuration: its sections, the schema that checks them, config files and overrides."""
