"""What one tries on a scene, looks at and tidies up."""
