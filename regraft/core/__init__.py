"""What every package stands on: errors, configuration, files, the state folder and pages."""
