# The same rules as RQ always wrote them, but for the weight, which Ruby's form does not know.
# This file is read, not executed.  An empty line closes a rule.

# Images go to one of the big machines.
rule "images"
  dest /(^|\/)images$/
  action :balance
  route "mq1.example.com", "mq2.example.com"

# What cameras report is kept in both places, in each by one machine of two.
rule "cameras"
  src /\Acamera\d+\z/
  dest /(^|\/)report$/
  action :relay
  route ["east1.example.com", "east2.example.com"],
        ["west1.example.com", "west2.example.com:4444"]
  log true

# Thumbnails are made here, a minute later.
rule "thumbnails"
  dest /(^|\/)thumbnails$/
  action :relay
  route "/q/thumbnails"
  delay 60

# Nobody wants these any more.
rule "old"
  src /\Alegacy/
  action :done

rule "default"
  action :err
  log true
