using System.Collections.Generic;
using System.Text.RegularExpressions;

namespace MicroVm.Protocol.Generator;

/// <summary>One rpc of a service.</summary>
/// <param name="name">The method's name.</param>
/// <param name="request">Name of the request message.</param>
/// <param name="response">Name of the response message.</param>
/// <param name="comment">The comment before it, on one line.</param>
internal sealed class ProtoCall(string name, string request, string response, string comment)
{
    /// <summary>The method's name.</summary>
    public string Name => name;

    /// <summary>Name of the request message.</summary>
    public string Request => request;

    /// <summary>Name of the response message.</summary>
    public string Response => response;

    /// <summary>The comment before the rpc, on one line.</summary>
    public string Comment => comment;

    /// <summary>The comment ends with <see cref="ProtoService.NoDeadline"/>.</summary>
    public bool Waits => comment.EndsWith(ProtoService.NoDeadline, System.StringComparison.Ordinal);
}

/// <summary>
/// The service of a .proto file, by the part of the language that our files use: one service, unary calls, messages of the
/// same package.
/// </summary>
internal sealed class ProtoService
{
    /// <summary>The end of an rpc's comment that gives the call no deadline unless its caller gives one.</summary>
    public const string NoDeadline = "No deadline.";

    private const RegexOptions Lines = RegexOptions.Multiline | RegexOptions.CultureInvariant;
    private static readonly Regex Package = new(@"^package\s+([\w.]+)\s*;", Lines);
    private static readonly Regex Namespace = new(@"^option\s+csharp_namespace\s*=\s*""([\w.]+)""\s*;", Lines);
    private static readonly Regex Service = new(@"^service\s+(\w+)\s*\{(.*?)^\}", Lines | RegexOptions.Singleline);
    private static readonly Regex EmptyMessage = new(@"^message\s+(\w+)\s*\{\s*\}", Lines);
    private static readonly Regex Call = new(@"^rpc\s+(\w+)\s*\(\s*(\w+)\s*\)\s*returns\s*\(\s*(\w+)\s*\)\s*(;|\{\s*\})$", RegexOptions.CultureInvariant);

    private ProtoService(string name, string fullName, string @namespace)
    {
        Name = name;
        FullName = fullName;
        CSharpNamespace = @namespace;
    }

    /// <summary>The service's name, for example <c>Agent</c>.</summary>
    public string Name { get; }

    /// <summary>The name in calls, for example <c>microvm.agent.v1.Agent</c>.</summary>
    public string FullName { get; }

    /// <summary>The namespace of messages and stubs.</summary>
    public string CSharpNamespace { get; }

    /// <summary>The calls, in the file's order.</summary>
    public List<ProtoCall> Calls { get; } = [];

    /// <summary>Messages without a field: a call with such a request takes no argument.</summary>
    public HashSet<string> EmptyMessages { get; } = [];

    /// <summary>Reads a file's text.</summary>
    /// <param name="text">The file.</param>
    /// <param name="problem">The line that was not understood, or what is missing.</param>
    /// <returns>Null when there is a problem, and for a file without a service.</returns>
    public static ProtoService? Parse(string text, out string? problem)
    {
        problem = null;
        Match service = Service.Match(text);
        if (!service.Success)
        {
            return null;
        }

        Match package = Package.Match(text), csharp = Namespace.Match(text);
        if (!package.Success || !csharp.Success || service.NextMatch().Success)
        {
            problem = "it needs one package, one csharp_namespace and at most one service";
            return null;
        }

        string name = service.Groups[1].Value;
        ProtoService result = new(name, package.Groups[1].Value + "." + name, csharp.Groups[1].Value);
        foreach (Match empty in EmptyMessage.Matches(text))
        {
            result.EmptyMessages.Add(empty.Groups[1].Value);
        }

        string comment = "";
        foreach (string raw in service.Groups[2].Value.Split('\n'))
        {
            string line = raw.Trim();
            if (line.StartsWith("//", System.StringComparison.Ordinal))
            {
                comment = (comment + " " + line.Substring(2).Trim()).Trim();
                continue;
            }

            if (line.Length > 0)
            {
                Match call = Call.Match(line);
                if (!call.Success)
                {
                    problem = $"\"{line}\" is not \"rpc Name(Request) returns (Response);\" with messages of this file";
                    return null;
                }

                result.Calls.Add(new ProtoCall(call.Groups[1].Value, call.Groups[2].Value, call.Groups[3].Value, comment));
            }

            comment = "";
        }

        return result;
    }
}
