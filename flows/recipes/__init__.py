"""What a result is a function of: methods, presets merged with what was given, forms.

May import cluster, home and the library.
"""
