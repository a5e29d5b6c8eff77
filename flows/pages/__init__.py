"""What people look at: Prefect artifacts, tables, `report.html`, the terminal; pictures in `figures`.

May import lineage and what is below.
"""
