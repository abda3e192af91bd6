"""What hostile people would write where a name or a reason is shown."""

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "'--></style><script>alert(1)</script>",
    "</td></table><iframe src=//evil.example>",
    "{{ 7 * 7 }} {% for x in y %}",
    "javascript:alert(1)",
    "a\u202egnp.exe\u0000\x1b[31m\r\n\ud800 b",
)
