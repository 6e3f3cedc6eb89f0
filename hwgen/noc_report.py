def noc_report(result): return ""
