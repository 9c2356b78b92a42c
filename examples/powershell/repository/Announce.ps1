# What the survey said, then a line for each argument.
Write-Output 'rolling out'
$env:FORGE_VAR_VERSION
Write-Output 'to'
$args
