"""The doorways: one step a stage, each calls one core function and says what came out."""
