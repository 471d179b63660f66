using System.Text.RegularExpressions;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>A running container that takes whatever is asked of it.</summary>
public sealed class RuncTextFixture : IDisposable
{
    public RuncTextFixture()
    {
        if (Installation.WhyNothingRuns is null)
        {
            Container = new DetachedContainer(Bundle.Create("sleep 100000"));
            Assert.Equal(0, Container.Create().ExitCode);
            Container.Call("start").EnsureSuccess();
            File.WriteAllText(Container["empty.json"], "{}");
        }
    }

    internal DetachedContainer? Container { get; }

    public void Dispose()
    {
        Container?.Dispose();
        Container?.Bundle.Dispose();
    }
}

/// <summary>What is said to wrong input: exit status and text are runc's, which the same table proves when runc is the runtime.</summary>
public sealed partial class RuncTextTests(RuncTextFixture fixture) : IClassFixture<RuncTextFixture>
{
    // NAME and PROGRAM stand for the runtime's name and path, ID for the container's, DIR for a folder of the test's.
    [SkippableTheory]
    [InlineData("nosuch", 3, "No help topic for 'nosuch'\\n")]
    [InlineData("--nosuch", 1, "flag provided but not defined: -nosuch")]
    [InlineData("--root", 1, "flag needs an argument: -root")]
    [InlineData("--debug=x list", 1, "invalid boolean value \"x\" for -debug: parse error")]
    [InlineData("--log-format xml list", 1, "invalid log-format: xml")]
    [InlineData("--log /no/such/folder/file list", 1, "open /no/such/folder/file: no such file or directory")]
    [InlineData("create", 1, "PROGRAM: \"create\" requires exactly 1 argument(s)")]
    [InlineData("create a b", 1, "PROGRAM: \"create\" requires exactly 1 argument(s)")]
    [InlineData("create --nosuch a", 1, "flag provided but not defined: -nosuch")]
    [InlineData("create --preserve-fds x a", 1, "invalid value \"x\" for flag -preserve-fds: parse error")]
    [InlineData("create --bundle /no/such a", 1, "NAME create failed: chdir /no/such: no such file or directory")]
    [InlineData("create --bundle DIR a", 1, "NAME create failed: JSON specification file config.json not found")]
    [InlineData("create --bundle BUNDLE a!b", 1, "NAME create failed: invalid container ID format")]
    [InlineData("create --bundle BUNDLE ..", 1, "NAME create failed: invalid container ID format")]
    [InlineData("create --bundle BUNDLE EMPTY", 1, "NAME create failed: container id cannot be empty")]
    [InlineData("create --bundle BUNDLE ID", 1, "NAME create failed: container with given ID already exists")]
    [InlineData("create --bundle BUNDLE --console-socket /no/such a", 1, "NAME create failed: cannot use console socket if runc will not detach or allocate tty")]
    [InlineData("run", 1, "PROGRAM: \"run\" requires exactly 1 argument(s)")]
    [InlineData("run --bundle /no/such a", 1, "NAME run failed: chdir /no/such: no such file or directory")]
    [InlineData("run --bundle BUNDLE ID", 1, "NAME run failed: container with given ID already exists")]
    [InlineData("run a --bundle /no/such", 1, "NAME run failed: chdir /no/such: no such file or directory")]
    [InlineData("run -d a --bundle /no/such", 1, "PROGRAM: \"run\" requires exactly 1 argument(s)")]
    [InlineData("run -d --bundle BUNDLE --pid-file /no/such/pid a", 1, "NAME run failed: open /no/such/.pid: no such file or directory")]
    [InlineData("start", 1, "PROGRAM: \"start\" requires exactly 1 argument(s)")]
    [InlineData("start nope", 1, "container does not exist")]
    [InlineData("start ID", 1, "cannot start an already running container")]
    [InlineData("state", 1, "PROGRAM: \"state\" requires exactly 1 argument(s)")]
    [InlineData("state nope", 1, "container does not exist")]
    [InlineData("state no/pe", 1, "invalid container ID format")]
    [InlineData("kill", 1, "PROGRAM: \"kill\" requires a minimum of 1 argument(s)")]
    [InlineData("kill a b c", 1, "PROGRAM: \"kill\" requires a maximum of 2 argument(s)")]
    [InlineData("kill nope", 1, "container does not exist")]
    [InlineData("kill ID NOSUCH", 1, "unknown signal \"NOSUCH\"")]
    [InlineData("kill ID 99", 1, "unable to signal init: invalid argument")]
    [InlineData("kill ID -5", 1, "unable to signal init: invalid argument")]
    [InlineData("kill ID 0", 0, "")]
    [InlineData("kill ID 0 --all", 0, "")]
    [InlineData("kill ID --all 0", 1, "container does not exist")]
    [InlineData("kill ID --all=false 0", 0, "")]
    [InlineData("kill ID -- 0 --all", 1, "PROGRAM: \"kill\" requires a maximum of 2 argument(s)")]
    [InlineData("delete", 1, "PROGRAM: \"delete\" requires exactly 1 argument(s)")]
    [InlineData("delete nope", 1, "container does not exist")]
    [InlineData("delete --force nope", 0, "")]
    [InlineData("delete nope --force", 0, "")]
    [InlineData("delete nope -f x", 1, "PROGRAM: \"delete\" requires exactly 1 argument(s)")]
    [InlineData("delete -- -f", 1, "container does not exist")]
    [InlineData("delete nope --nosuch", 1, "PROGRAM: \"delete\" requires exactly 1 argument(s)")]
    [InlineData("delete ID", 1, "cannot delete container ID that is not stopped: running")]
    [InlineData("pause nope", 1, "container does not exist")]
    [InlineData("resume nope", 1, "container does not exist")]
    [InlineData("resume ID", 1, "container not paused")]
    [InlineData("exec", 1, "PROGRAM: \"exec\" requires a minimum of 1 argument(s)")]
    [InlineData("exec nope true", 255, "exec failed: container does not exist")]
    [InlineData("exec nope", 255, "exec failed: container does not exist")]
    [InlineData("exec ID", 255, "exec failed: process args cannot be empty")]
    [InlineData("exec ID nosuch", 255, "exec failed: unable to start container process: exec: \"nosuch\": executable file not found in $PATH")]
    [InlineData("exec -e PATH=bin --cwd / ID echo", 255, "exec failed: unable to start container process: exec: \"echo\": cannot run executable found relative to current directory")]
    [InlineData("exec -e PATH= --cwd /bin ID echo", 255, "exec failed: unable to start container process: exec: \"echo\": executable file not found in $PATH")]
    [InlineData("exec ID /no/such", 255, "exec failed: unable to start container process: exec: \"/no/such\": stat /no/such: no such file or directory")]
    [InlineData("exec ID /bin", 255, "exec failed: unable to start container process: exec: \"/bin\": permission denied")]
    [InlineData("exec --cwd relative ID true", 255, "exec failed: Cwd must be an absolute path")]
    [InlineData("exec --cwd /no/such ID true", 255, "exec failed: unable to start container process: chdir to cwd (\"/no/such\") set in config.json failed: no such file or directory")]
    [InlineData("exec --user a ID true", 255, "exec failed: parsing a as int for uid failed: strconv.Atoi: parsing \"a\": invalid syntax")]
    [InlineData("exec --user 0:b ID true", 255, "exec failed: parsing b as int for gid failed: strconv.Atoi: parsing \"b\": invalid syntax")]
    [InlineData("exec -g x ID true", 1, "invalid value \"x\" for flag -g: strconv.ParseInt: parsing \"x\": invalid syntax")]
    [InlineData("exec -e NOVALUE ID true", 255, "exec failed: unable to start container process: invalid environment variable: \"NOVALUE\"")]
    [InlineData("exec -p /no/such ID", 255, "exec failed: open /no/such: no such file or directory")]
    [InlineData("exec -p DIR/empty.json ID", 255, "exec failed: Cwd property must not be empty")]
    [InlineData("exec --console-socket /no/such ID true", 255, "exec failed: cannot use console socket if runc will not detach or allocate tty")]
    [InlineData("exec -d -t ID true", 255, "exec failed: cannot allocate tty if runc will detach without setting console socket")]
    [InlineData("exec -d --pid-file /no/such/pid ID true", 255, "exec failed: open /no/such/.pid: no such file or directory")]
    [InlineData("ps", 1, "PROGRAM: \"ps\" requires a minimum of 1 argument(s)")]
    [InlineData("ps nope", 1, "container does not exist")]
    [InlineData("ps --format xml ID", 1, "invalid format option")]
    [InlineData("ps ID -o comm", 1, "couldn't find PID field in ps output")]
    [InlineData("events", 1, "PROGRAM: \"events\" requires exactly 1 argument(s)")]
    [InlineData("events nope", 1, "container does not exist")]
    [InlineData("events --interval x ID", 1, "invalid value \"x\" for flag -interval: parse error")]
    [InlineData("events --interval 0s nope", 1, "container does not exist")]
    [InlineData("events --interval 0s ID", 1, "duration interval must be greater than 0")]
    [InlineData("events --interval -1s ID", 1, "duration interval must be greater than 0")]
    [InlineData("update nope", 1, "container does not exist")]
    [InlineData("update --resources /no/such nope", 1, "container does not exist")]
    [InlineData("update --resources /no/such ID", 1, "open /no/such: no such file or directory")]
    [InlineData("update --memory x ID", 1, "invalid value for memory: invalid size: 'x'")]
    [InlineData("update --memory 1x ID", 1, "invalid value for memory: invalid size: '1x'")]
    [InlineData("update --cpu-quota x ID", 1, "invalid value for cpu-quota: strconv.ParseInt: parsing \"x\": invalid syntax")]
    [InlineData("update --cpu-period x ID", 1, "invalid value for cpu-period: strconv.ParseUint: parsing \"x\": invalid syntax")]
    [InlineData("update --cpu-share x ID", 1, "invalid value for cpu-share: strconv.ParseUint: parsing \"x\": invalid syntax")]
    [InlineData("update --pids-limit x ID", 1, "invalid value \"x\" for flag -pids-limit: parse error")]
    [InlineData("update --blkio-weight x ID", 1, "invalid value \"x\" for flag -blkio-weight: parse error")]
    [InlineData("update ID", 0, "")]
    [InlineData("update ID --pids-limit 1000", 0, "")]
    [InlineData("update ID --pids-limit", 1, "invalid value \"ID\" for flag -pids-limit: parse error")]
    [InlineData("list x", 1, "PROGRAM: \"list\" requires exactly 0 argument(s)")]
    [InlineData("list --format xml", 1, "invalid format option")]
    [InlineData("spec --bundle /no/such", 1, "chdir /no/such: no such file or directory")]
    [InlineData("spec --bundle BUNDLE", 1, "File config.json exists. Remove it first")]
    [InlineData("features x", 1, "PROGRAM: \"features\" requires exactly 0 argument(s)")]
    public void WrongInputIsToldAsRuncTellsIt(string line, int status, string message)
    {
        Installation.RequireRuntime();
        DetachedContainer c = fixture.Container!;
        string Known(string text) => text.Replace("PROGRAM", Installation.Runtime, StringComparison.Ordinal)
            .Replace("NAME", Path.GetFileName(Installation.Runtime), StringComparison.Ordinal)
            .Replace("BUNDLE", c.Bundle.Path, StringComparison.Ordinal).Replace("DIR", c.Folder, StringComparison.Ordinal);

        // The words themselves have "ID" in them.
        message = Known(message).Replace(" ID that", $" {c.Id} that", StringComparison.Ordinal).Replace("\"ID\"", $"\"{c.Id}\"", StringComparison.Ordinal);
        string[] arguments = [.. line.Split(' ').Select(a => a == "ID" ? c.Id : a == "EMPTY" ? "" : a.StartsWith("NO", StringComparison.Ordinal) ? a : Known(a))];
        CommandResult result = c.Raw(arguments);
        string[] errors = result.StandardError.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal((status, message), (result.ExitCode, errors.Length == 0 ? "" : Unquoted(Assert.Single(errors))));
        Assert.True(result.StandardOutput.Length == 0 || result.StandardOutput.StartsWith("Incorrect Usage", StringComparison.Ordinal), result.StandardOutput);
    }

    [SkippableFact]
    public void PsTellsWhatPsSays()
    {
        Installation.RequireRuntime();
        CommandResult result = fixture.Container!.Raw("ps", fixture.Container.Id, "--no-such-option");
        Assert.Equal(1, result.ExitCode);
        Assert.Contains("exit status 1: error: unknown gnu long option", Assert.Single(result.StandardError.Split('\n', StringSplitOptions.RemoveEmptyEntries)), StringComparison.Ordinal);
        Assert.Contains(fixture.Container.Pid.ToString(System.Globalization.CultureInfo.InvariantCulture), fixture.Container.Raw("ps", fixture.Container.Id, "-o", "pid,args", "-e").EnsureSuccess().StandardOutput, StringComparison.Ordinal);
    }

    [SkippableFact]
    public void HelpIsOnStandardOutput()
    {
        Installation.RequireRuntime();
        foreach (string command in (string[])["create", "delete", "events", "exec", "features", "kill", "list", "pause", "ps", "resume", "run", "spec", "start", "state", "update", "checkpoint", "restore"])
        {
            CommandResult help = fixture.Container!.Raw(command, "--help");
            Assert.Equal((0, ""), (help.ExitCode, help.StandardError));
            Assert.StartsWith($"NAME:\n   {Path.GetFileName(Installation.Runtime)} {command} - ", help.StandardOutput, StringComparison.Ordinal);
            Assert.Contains("\nUSAGE:\n", help.StandardOutput, StringComparison.Ordinal);
            Assert.Contains($"   {command} ", fixture.Container.Raw("--help").StandardOutput, StringComparison.Ordinal);
        }
    }

    private static string Unquoted(string line)
    {
        Match match = Message().Match(line);
        Assert.True(match.Success, line);
        return match.Groups[1].Value.Replace("\\\"", "\"", StringComparison.Ordinal);
    }

    [GeneratedRegex("^time=\"[^\"]*\" level=error msg=\"(.*)\"$")]
    private static partial Regex Message();
}
